"""Values chosen per dataset and backbone, kept apart from params.yaml: a file of data, not of choices.

The file lists the tunings of each objective. A tuning says how its values were chosen and gives them for
``dataset/backbone`` (or ``dataset``), where they take the place of the objective's own. ``apao tune`` writes
those that a study's sweeps have found best on the validation items; the paper's Table 5 is there as printed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field, TypeAdapter, ValidationError

from apao.errors import UserError
from apao.files import atomic_path
from apao.parameters import Model, first_mistake, spelled
from apao.study.runs import Value
from apao.study.yaml_lines import line_of, read_yaml

HEAD = """\
# Values that take the place of an objective's own for one dataset and backbone; params.yaml names this file.
# `apao tune` adds those that sweeps have found best on the validation items. Of two tunings of a key the later holds.
"""
BY_SWEEP = "apao tune"
"""How a tuning begins to say that sweeps have chosen it."""

Values = Annotated[dict[str, Value], Field(min_length=1)]


class Tuning(Model):
    """Values of one objective that were chosen in one way."""

    chosen_by: Annotated[str, Field(min_length=1)]
    """Shown under the tables that use the values."""
    values: Annotated[dict[str, Values], Field(min_length=1)]
    """By ``dataset/backbone``, or by ``dataset`` for all its backbones."""

    @property
    def keys(self) -> set[str]:
        """The hyper-parameters that have values."""
        return {key for values in self.values.values() for key in values}


Tunings = dict[str, tuple[Tuning, ...]]
"""By objective."""
_TUNINGS: TypeAdapter[Tunings] = TypeAdapter(Tunings)


def read_tuned(path: Path) -> tuple[Tunings, yaml.Node | None]:
    """The tunings in a file, and its parse tree, which knows the lines.

    Raises:
        UserError: naming file, line and key of the first mistake.
    """
    data, root, _ = read_yaml(path)
    try:
        return _TUNINGS.validate_python({} if data is None else data), root
    except ValidationError as error:
        message, key = first_mistake(error)
        line = f":{line_of(key, root)}" if root is not None else ""
        raise UserError(f"{path}{line}: {spelled(message, key)}") from error


def write_tuned(path: Path, tunings: Mapping[str, Iterable[Tuning]]) -> None:
    """Write the file of these tunings, in their order."""
    plain = {name: [one.model_dump() for one in given] for name, given in tunings.items()}
    with atomic_path(path) as temporary:
        text = yaml.safe_dump(plain, sort_keys=False, width=110, allow_unicode=True)
        temporary.write_text(HEAD + text, encoding="utf-8")


def with_tuning(tunings: Iterable[Tuning], new: Tuning) -> tuple[Tuning, ...]:
    """The tunings of an objective with a new one, which replaces what sweeps had chosen for the same keys."""
    kept = (one for one in tunings if not (one.chosen_by.startswith(BY_SWEEP) and one.keys <= new.keys))
    return (*kept, new)


def values_at(tunings: Iterable[Tuning], dataset: str, backbone: str) -> dict[str, Value]:
    """What is chosen for one model: the values for its backbone win over those for the whole dataset."""
    tunings, found = list(tunings), dict[str, Value]()
    for place in (dataset, f"{dataset}/{backbone}"):
        for one in tunings:
            found |= one.values.get(place, {})
    return found
