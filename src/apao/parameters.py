"""Typed parameters: the base class of all models, registries of classes, and validation errors with their key."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import textwrap
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Annotated, Any, Generic, TypeVar, Union, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ValidationError,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema
from typing_extensions import override

from apao.errors import AtKey, UserError, nearest

Key = tuple[str | int, ...]
"""Path of a value: names and list indices."""
TAGS = ("source", "type", "method", "kind")
"""Keys that select the class of an entry."""

NAME = r"[A-Za-z0-9][A-Za-z0-9_.>-]*"
KEY = r"[a-z][a-z0-9_]*"
VALUE = r"[A-Za-z0-9-][A-Za-z0-9.>-]*"
OBJECTIVE_NAME = rf"{NAME}(?:\+{NAME})*"
"""May contain a plus (``ce+s-dpo``): everything before the first ``key=value`` is the name."""
OBJECTIVE = rf"{OBJECTIVE_NAME}(?:\+{KEY}={VALUE})*"
SpelledObjective = Annotated[str, Field(pattern=rf"^{OBJECTIVE}$")]
"""An objective with its overrides, as in a run's name."""
MAX_SEED = 999_999_999
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]


class Model(BaseModel):
    """Base class of all parameter models: immutable, finite numbers only, unknown keys refused with a suggestion."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())

    @classmethod
    @override
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """The schema, with the docstrings of the fields as descriptions.

        Pydantic's ``use_attribute_docstrings`` reads them whenever a class is defined, half a second in every process.
        """
        schema = handler.resolve_ref_schema(handler(core_schema))
        for name, docstring in field_docstrings(cls).items():
            schema["properties"][name].setdefault("description", docstring)
        return schema

    @model_validator(mode="before")
    @classmethod
    def _names_and_booleans(cls, data: object) -> object:
        if not isinstance(data, dict):
            return data
        for key, value in data.items():
            if key not in cls.model_fields:
                raise AtKey(f"unknown key {key!r}; {nearest(str(key), cls.model_fields)}", key)
            # Pydantic would convert YAML's `yes` to the number 1.
            values = value if isinstance(value, list | tuple) else [value]
            if any(isinstance(entry, bool) for entry in values) and not _holds_bool(cls.model_fields[key].annotation):
                meaning = "YAML reads yes, no, on and off as booleans"
                raise AtKey(f"expected a number or a name, found {value!r} ({meaning})", key)
        return data


def field_docstrings(cls: type[Model]) -> dict[str, str]:
    """The string below each field of ``cls`` and of its bases, by field."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if issubclass(base, Model):
            (definition,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
            assert isinstance(definition, ast.ClassDef)
            for field, text in pairwise(definition.body):
                match field, text:
                    case ast.AnnAssign(target=ast.Name(name)), ast.Expr(ast.Constant(str(docstring))):
                        found[name] = inspect.cleandoc(docstring)
    return {name: docstring for name, docstring in found.items() if name in cls.model_fields}


def _holds_bool(annotation: Any) -> bool:
    return annotation in (bool, Any) or any(_holds_bool(part) for part in get_args(annotation))


T = TypeVar("T", bound=Model)


class Registry(Generic[T]):
    """Parameter classes of one kind (objective, backbone, source, tokenizer, tracker, study), by their tag's value.

    ``tag`` is the field whose ``Literal`` annotation holds the name of the class, for example ``type``. All modules
    of ``package`` are imported on first use, so a class in a new file there registers itself.
    """

    def __init__(self, kind: str, package: str, tag: str = "type") -> None:
        self.kind, self.package, self.tag = kind, package, tag
        self._classes: dict[str, type[T]] = {}
        self._loaded = False

    def register(self, cls: type[T]) -> type[T]:
        """Class decorator: register ``cls`` under the only value that its tag field allows.

        Raises:
            ValueError: when another class has that name.
        """
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
        """All registered classes, sorted by name."""
        return tuple(self._load()[name] for name in self)


def one_of(registry: Registry[Any]) -> Any:
    """Annotation of a field that accepts any registered class, selected by its tag."""

    def tagged(value: object) -> object:
        if isinstance(value, Mapping) and registry.tag not in value:
            raise AtKey(f"required, but not given; expected one of {', '.join(registry)}", registry.tag)
        return value

    return Annotated[Union[registry.classes()], Field(discriminator=registry.tag), BeforeValidator(tagged)]  # noqa: UP007


def first_mistake(error: ValidationError, data: object = None) -> tuple[str, Key]:
    """Message and key of the first error; ``data`` is the validated input, needed if it contains unions."""
    first = error.errors()[0]
    key = _key_in_file(first["loc"], data)
    context = first.get("ctx", {})
    if isinstance(context.get("error"), AtKey):
        key += context["error"].key
    match first["type"]:
        case "value_error":
            return str(context["error"]), key
        case "union_tag_invalid":
            known = [name.strip("'") for name in context["expected_tags"].split(", ")]
            return f"unknown {context['tag']!r}; {nearest(context['tag'], known)}", (*key, _tag(context))
        case "union_tag_not_found":
            return "required, but not given", (*key, _tag(context))
        case "missing":
            return "required, but not given", key
        case "model_type" | "model_attributes_type" | "dict_type" | "mapping_type":
            wanted = "expected keys and values"
        case "tuple_type":
            wanted = "expected a list"
        case _:
            wanted = first["msg"]
    return f"{wanted}, found {first['input']!r}", key


def _tag(context: Mapping[str, str]) -> str:
    return context["discriminator"].strip("'")


def _key_in_file(loc: Key, data: object) -> Key:
    """``loc`` without pydantic's additions: the tag after each union, and labels in square brackets."""
    key: list[str | int] = []
    for part in loc:
        if isinstance(data, dict) and part not in data and part in [data.get(tag) for tag in TAGS]:
            continue
        if not (isinstance(part, str) and part.startswith("[") and part.endswith("]")):
            key.append(part)
            data = data.get(part) if isinstance(data, dict) else None
    return tuple(key)


def spelled(message: str, key: Key) -> str:
    """The message after its dotted key: ``a.b.c: message``."""
    return f"{'.'.join(map(str, key))}: {message}" if key else message
