"""Tuned hyper-parameters per dataset and backbone, in a file of their own because programs write them.

The file lists the tunings of each objective. A tuning states how its values were chosen, and has values per
``dataset/backbone`` (or per ``dataset``) that override the objective's own and those of the recipe's training and
backbone. ``apao tune`` writes the values that a study's sweeps found best on the validation items, ``apao search``
those of a search; the values of the paper's Table 5 are there as printed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field, TypeAdapter, ValidationError

from apao.errors import UserError
from apao.files import atomic_path, locked
from apao.parameters import Model, first_mistake, spelled
from apao.progress import console
from apao.study.runs import Value
from apao.study.yaml_lines import line_of, read_yaml

HEAD = """\
# Values that override an objective's own for one dataset and backbone; params.yaml names this file. `apao tune` and
# `apao search` add the values that they found best on the validation items. If two tunings set the same key, that of a
# backbone applies before that of its whole dataset, and of two alike the later one.
"""
BY_SWEEP, BY_SEARCH = "apao tune", "apao search"
"""Beginning of ``chosen_by`` in tunings that these commands wrote."""

Values = Annotated[dict[str, Value], Field(min_length=1)]


class Tuning(Model):
    """Values of one objective that were chosen by the same method."""

    chosen_by: Annotated[str, Field(min_length=1)]
    """How the values were chosen; shown under the tables that use them."""
    values: Annotated[dict[str, Values], Field(min_length=1)]
    """Values by ``dataset/backbone``, or by ``dataset`` for all its backbones."""


Tunings = dict[str, tuple[Tuning, ...]]
"""Tunings by objective; later ones take precedence."""
_TUNINGS: TypeAdapter[Tunings] = TypeAdapter(Tunings)


def read_tuned(path: Path) -> tuple[Tunings, yaml.Node | None]:
    """Read the tunings of a file, and its parse tree, which has the line numbers.

    Raises:
        UserError: for the first error, with file, line and key.
    """
    data, root, _ = read_yaml(path)
    try:
        return _TUNINGS.validate_python({} if data is None else data), root
    except ValidationError as error:
        message, key = first_mistake(error)
        line = f":{line_of(key, root)}" if root is not None else ""
        raise UserError(f"{path}{line}: {spelled(message, key)}") from error


def write_tuned(path: Path, tunings: Mapping[str, Iterable[Tuning]]) -> None:
    """Write the tunings to a file, in their order."""
    plain = {name: [tuning.model_dump() for tuning in given] for name, given in tunings.items()}
    with atomic_path(path) as temporary:
        text = yaml.safe_dump(plain, sort_keys=False, width=110, allow_unicode=True)
        temporary.write_text(HEAD + text, encoding="utf-8")


def add_tunings(path: Path, found: Iterable[tuple[str, Tuning]]) -> None:
    """Add tunings, as pairs with their objective, to those that the file has now, if it exists."""
    # Searches run side by side. The file itself is replaced by the writing, and its lock would stay with the old one.
    waiting = partial(console.print, f"waiting for another process that writes {path}")
    with locked(path.with_name(f".{path.name}.lock"), waiting):
        tunings = read_tuned(path)[0] if path.exists() else {}
        for objective, tuning in found:
            tunings[objective] = with_tuning(tunings.get(objective, ()), tuning)
        write_tuned(path, tunings)


def with_tuning(tunings: Iterable[Tuning], new: Tuning) -> tuple[Tuning, ...]:
    """The tunings of an objective with ``new`` appended, without what a command chose for the same keys before."""
    return (*(kept for old in tunings if (kept := _without_replaced(old, new)) is not None), new)


def _without_replaced(old: Tuning, new: Tuning) -> Tuning | None:
    """``old`` without the places where ``new`` has all its keys, if a command wrote it; None if no place is left."""
    if not old.chosen_by.startswith((BY_SWEEP, BY_SEARCH)):
        return old
    kept = {
        place: values for place, values in old.values.items() if not values.keys() <= new.values.get(place, {}).keys()
    }
    return old.model_copy(update={"values": kept}) if kept else None


def values_at(tunings: Iterable[Tuning], dataset: str, backbone: str) -> dict[str, Value]:
    """Values for one dataset and backbone; those for the backbone override those for the whole dataset."""
    tunings, values = list(tunings), dict[str, Value]()
    for place in (dataset, f"{dataset}/{backbone}"):
        for tuning in tunings:
            values |= tuning.values.get(place, {})
    return values
