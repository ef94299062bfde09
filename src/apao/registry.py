"""Named classes that live one family to a file and find their way into params.yaml by themselves."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Annotated, Any, Generic, TypeVar, Union, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from apao.errors import AtKey, UserError, nearest


class Model(BaseModel):
    """Base of every parameter model: immutable, finite, no unknown keys, errors that suggest a name."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=(), use_attribute_docstrings=True
    )

    @model_validator(mode="before")
    @classmethod
    def _names_and_booleans(cls, data: object) -> object:
        if not isinstance(data, dict):
            return data
        for key, value in data.items():
            if key not in cls.model_fields:
                raise AtKey(f"unknown key {key!r}; {nearest(str(key), cls.model_fields)}", key)
            # Pydantic would take YAML's `yes` for the number 1.
            values = value if isinstance(value, list | tuple) else [value]
            if any(isinstance(one, bool) for one in values) and not _holds_bool(cls.model_fields[key].annotation):
                raise AtKey(f"expected a number or a name, found {value!r} (yes, no, on and off mean that)", key)
        return data


def _holds_bool(annotation: Any) -> bool:
    return annotation in (bool, Any) or any(_holds_bool(part) for part in get_args(annotation))


T = TypeVar("T", bound=Model)


class Registry(Generic[T]):
    """The parameter classes of one kind (objective, backbone, source), by the value of their tag.

    ``tag`` is the field whose literal default names the class, for example ``type``. Every module of
    ``package`` is imported on first use, so a new file there registers itself.
    """

    def __init__(self, kind: str, package: str, tag: str = "type") -> None:
        self.kind, self.package, self.tag = kind, package, tag
        self._classes: dict[str, type[T]] = {}
        self._loaded = False

    def register(self, cls: type[T]) -> type[T]:
        """Class decorator: file ``cls`` under the one literal that its tag field allows."""
        (name,) = cls.model_fields[self.tag].annotation.__args__  # type: ignore[union-attr]
        if name in self._classes:
            raise ValueError(f"two {self.kind}s are called {name!r}: {self._classes[name]} and {cls}")
        self._classes[name] = cls
        return cls

    def _load(self) -> dict[str, type[T]]:
        if not self._loaded:
            package = importlib.import_module(self.package)
            for module in pkgutil.iter_modules(package.__path__, self.package + "."):
                importlib.import_module(module.name)
            self._loaded = True
        return self._classes

    def __getitem__(self, name: str) -> type[T]:
        classes = self._load()
        if name not in classes:
            raise UserError(f"unknown {self.kind} {name!r}; {nearest(name, classes)}")
        return classes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._load()))

    def classes(self) -> tuple[type[T], ...]:
        """Every registered class, in the order of their names."""
        return tuple(self._load()[name] for name in self)


def one_of(registry: Registry[Any]) -> Any:
    """The type of a field that holds any registered class, chosen by its tag."""
    return Annotated[Union[registry.classes()], Field(discriminator=registry.tag)]  # noqa: UP007
