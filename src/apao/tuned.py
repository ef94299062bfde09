"""Values chosen per dataset and backbone, kept apart from params.yaml: a file of data, not of choices.

The file is a list of tunings. Each names an objective, says how its values were chosen, and gives them for
``dataset/backbone`` (or ``dataset``), where they take the place of the objective's own. ``apao tune`` writes
those that a study's sweeps have found best on the validation items; the paper's Table 5 is there as printed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field, TypeAdapter, ValidationError

from apao.artifacts import atomic_path
from apao.errors import UserError
from apao.mistakes import first_mistake, line_of, read_yaml, spelled
from apao.registry import Model
from apao.runs import Value

HEAD = """\
# Values that take the place of an objective's own for one dataset and backbone; params.yaml names this file.
# `apao tune` adds those that sweeps have found best on the validation items. Of two tunings of a key the later holds.
"""
BY_SWEEP = "apao tune"
"""How a tuning begins to say that sweeps have chosen it."""

Values = Annotated[dict[str, Value], Field(min_length=1)]


class Tuning(Model):
    """Values of one objective that were chosen in one way."""

    objective: str
    chosen_by: Annotated[str, Field(min_length=1)]
    """Shown under the tables that use the values."""
    values: Annotated[dict[str, Values], Field(min_length=1)]
    """By ``dataset/backbone``, or by ``dataset`` for all its backbones."""


_TUNINGS = TypeAdapter(tuple[Tuning, ...])


def read_tuned(path: Path) -> tuple[Tuning, ...]:
    """The tunings in a file.

    Raises:
        UserError: naming file, line and key of the first mistake.
    """
    data, root, _ = read_yaml(path)
    try:
        return _TUNINGS.validate_python(data)
    except ValidationError as error:
        message, key = first_mistake(error)
        line = f":{line_of(key, root)}" if root is not None else ""
        raise UserError(f"{path}{line}: {spelled(message, key)}") from error


def write_tuned(path: Path, tunings: Iterable[Tuning]) -> None:
    """Write the file of these tunings, in their order."""
    with atomic_path(path) as temporary:
        text = yaml.safe_dump([one.model_dump() for one in tunings], sort_keys=False, width=110, allow_unicode=True)
        temporary.write_text(HEAD + text, encoding="utf-8")


def with_tuning(tunings: Iterable[Tuning], new: Tuning) -> tuple[Tuning, ...]:
    """The tunings with a new one, which replaces what sweeps had chosen for the same objective and keys."""
    keys = _keys(new)
    kept = (
        one
        for one in tunings
        if not (one.objective == new.objective and one.chosen_by.startswith(BY_SWEEP) and _keys(one) <= keys)
    )
    return (*kept, new)


def _keys(tuning: Tuning) -> set[str]:
    return {key for values in tuning.values.values() for key in values}


def values_for(tunings: Iterable[Tuning], objective: str, places: Iterable[str]) -> dict[str, Value]:
    """What is chosen for an objective at ``places``, given from the general to the specific one."""
    found: dict[str, Value] = {}
    of_objective = [one for one in tunings if one.objective == objective]
    for place in places:
        for one in of_objective:
            found |= one.values.get(place, {})
    return found


def origins(tunings: Iterable[Tuning], objectives: Iterable[str], places: Iterable[str]) -> Mapping[str, list[str]]:
    """For each objective with chosen values at one of the places: how they were chosen."""
    wanted, found = set(places), dict[str, list[str]]()
    tunings = list(tunings)
    for objective in objectives:
        for one in tunings:
            if one.objective == objective and wanted & set(one.values):
                found.setdefault(objective, []).append(f"{', '.join(sorted(_keys(one)))} by {one.chosen_by}")
    return found
