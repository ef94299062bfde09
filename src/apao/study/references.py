"""References between the entries of params.yaml: every name must be defined, and its entry must be compatible."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from apao.errors import AtKey, UserError, nearest
from apao.parameters import Key, Model, first_mistake
from apao.study.paths import NO_DATASET
from apao.study.runs import Run, format_value

if TYPE_CHECKING:
    from apao.study.params import Params
    from apao.study.run_params import RunParams
    from apao.study.sweeps import Sweep

FIXED = {"type", "tuned"}
"""Keys of an objective that no run can override."""


def changed(model: Model, values: Mapping[str, Any]) -> Model:
    """Copy of ``model`` with some fields replaced, validated again."""
    return type(model).model_validate({**model.model_dump(), **values})


def owners(parts: Mapping[str, Model]) -> dict[str, str]:
    """The name of the part that has each key. Parts are those of a run: objective, training, backbone."""
    return {key: name for name, part in parts.items() for key in type(part).model_fields if key not in FIXED}


def with_values(parts: Mapping[str, Model], values: Mapping[str, Any]) -> dict[str, Model]:
    """Copy of ``parts`` with each value in the part that has its key; raises pydantic's ValidationError."""
    owner = owners(parts)
    # All values of a part at once: some keys are valid only together.
    own = {name: {key: value for key, value in values.items() if owner[key] == name} for name in parts}
    return {name: changed(part, own[name]) if own[name] else part for name, part in parts.items()}


def resolve_sweeps(studies: object, sweeps: Mapping[str, Sweep]) -> object:
    """Replace the names of sweeps by the sweeps in the section ``studies``, before its validation.

    Values of an unexpected type are returned unchanged; the validation of the studies refuses them.

    Raises:
        AtKey: for a sweep that is not defined; the key starts below ``studies``.
    """
    if not isinstance(studies, dict):
        return studies
    return {scale: _group_with_sweeps(group, sweeps, scale) for scale, group in studies.items()}


def _group_with_sweeps(group: object, sweeps: Mapping[str, Sweep], scale: str) -> object:
    if not isinstance(group, dict):
        return group
    return {name: _study_with_sweeps(study, sweeps, scale, name) for name, study in group.items()}


def _study_with_sweeps(study: object, sweeps: Mapping[str, Sweep], *where: str) -> object:
    if not isinstance(study, dict) or not isinstance(study.get("sweeps"), list):
        return study
    for i, name in enumerate(study["sweeps"]):
        if not isinstance(name, str):
            raise AtKey(f"expected the name of a sweep, found {name!r}; {nearest('', sweeps)}", *where, "sweeps", i)
        _known(name, sweeps, "sweeps", *where, "sweeps", i)
    return {**study, "sweeps": [sweeps[name] for name in study["sweeps"]]}


def check_references(params: Params) -> None:
    """Raise AtKey at the first entry with an undefined or incompatible reference."""
    _known(params.scale, params.studies, "studies", "scale")
    for name, code in params.codes.items():
        if code.embedder is not None:
            _known(code.embedder, params.embedders, "embedders", "codes", name, "embedder")
    for name in params.datasets:
        _check_dataset(params, name)
    for name in params.objectives:
        _check_objective(params, name)
    for name in params.tuned:
        _check_tunings(params, name)
    for name in params.sweeps:
        _check_sweep(params, name)


def _check_dataset(params: Params, name: str) -> None:
    if name in NO_DATASET:
        raise AtKey(f"results/{name} has other files than a dataset's results; choose another name", "datasets", name)
    source = params.datasets[name]
    _known(source.codes, params.codes, "codes", "datasets", name, "codes")
    _known(source.recipe, params.recipes, "recipes", "datasets", name, "recipe")
    tokenizer, beam = params.codes[source.codes], params.recipes[source.recipe].decoding.beam
    if tokenizer.reads_published and not source.publishes_codes:
        message = f"source {source.source!r} publishes no codes, which codes.{source.codes} reads; name another entry"
        raise AtKey(message, "datasets", name, "codes")
    if beam != "all" and tokenizer.capacity is not None and beam > tokenizer.capacity:
        message = f"{beam} is more than the {tokenizer.capacity} codes that codes.{source.codes} can assign to items "
        message += f"of datasets.{name}; use all"
        raise AtKey(message, "recipes", source.recipe, "decoding", "beam")


def _check_objective(params: Params, name: str) -> None:
    objective = params.objectives[name]
    if objective.start is not None:
        try:
            start = Run.of("any", "any", objective.start, 0).objective
        except UserError as error:
            raise AtKey(str(error), "objectives", name, "start") from error
        _known(start, params.objectives, "objectives", "objectives", name, "start")
    for place, values in objective.tuned.items():
        where: Key = ("objectives", name, "tuned", place)
        _parts_at(params, place, where)
        _check_tuned({"objective": objective}, values, where)


def _check_tunings(params: Params, name: str) -> None:
    _known(name, params.objectives, "objectives", "tuned", name)
    for i, tuning in enumerate(params.tuned[name]):
        for place, values in tuning.values.items():
            where: Key = ("tuned", name, i, "values", place)
            _check_tuned({"objective": params.objectives[name], **_parts_at(params, place, where)}, values, where)


def _parts_at(params: Params, place: str, where: Key) -> dict[str, Model]:
    """The training and the backbone of ``dataset/backbone``, or the training alone of ``dataset``."""
    dataset, slash, backbone = place.partition("/")
    _known(dataset, params.datasets, "datasets", *where)
    name = params.datasets[dataset].recipe
    recipe = params.recipes[name]
    if not slash:
        return {"training": recipe.training}
    _known(backbone, recipe.backbones, f"recipes.{name}.backbones", *where)
    return {"training": recipe.training, "backbone": recipe.backbones[backbone]}


def _check_tuned(parts: Mapping[str, Model], values: Mapping[str, Any], where: Key) -> None:
    """Check that tuned values belong to one of the parts and are valid."""
    known = owners(parts)
    for name in values:
        if name in FIXED:
            raise AtKey("is the same for all datasets; remove it here", *where, name)
        if name not in known:
            raise AtKey(f"unknown key {name!r}; {nearest(name, known)}", *where, name)
    try:
        with_values(parts, values)
    except ValidationError as error:
        message, key = first_mistake(error)
        raise AtKey(message, *where, *key) from error


def _check_sweep(params: Params, name: str) -> None:
    """Check that every objective of a sweep has the key as a numeric parameter that accepts all values."""
    sweep, where = params.sweeps[name], ("sweeps", name)
    for i, spelled in enumerate(sweep.objectives):
        try:
            run = Run.of("any", "any", spelled, 0)
        except UserError as error:
            raise AtKey(str(error), *where, "objectives", i) from error
        _known(run.objective, params.objectives, "objectives", *where, "objectives", i)
        objective = params.objectives[run.objective]
        fields = set(type(objective).model_fields) - FIXED
        if sweep.key not in fields:
            raise AtKey(f"{run.objective} has no parameter {sweep.key!r}; {nearest(sweep.key, fields)}", *where, "key")
        # Other overrides are of the training or the model, which are known only for the runs of a study.
        overrides = {key: value for key, value in run.overrides if key in fields}
        for j, value in enumerate(sweep.values):
            try:
                taken = getattr(changed(objective, {**overrides, sweep.key: value}), sweep.key)
            except ValidationError as error:
                message, _ = first_mistake(error)
                raise AtKey(f"{run.objective}: {message}", *where, "values", j) from error
            # Pydantic accepts 1 as true.
            if format_value(taken) != format_value(value):
                raise AtKey(f"{sweep.key!r} of {run.objective} is not a number; only numbers are swept", *where, "key")


def check_fit(params: Params, run: Run, resolved: RunParams) -> None:
    """Check that the codes of a run's dataset meet the requirements of its objective.

    Raises:
        UserError: when they do not; names the run.
    """
    name = params.datasets[run.dataset].codes
    tokenizer = params.codes[name]
    if tokenizer.depth is not None:
        try:
            resolved.objective.check_levels(tokenizer.depth)
        except ValueError as error:
            raise UserError(f"{run}: {error}") from error
    if resolved.objective.needs().embeddings and tokenizer.embedder is None:
        raise UserError(f"{run}: {run.objective} needs the items' embeddings; name an embedder in codes.{name}")


def _known(name: str, known: Mapping[str, object], section: str, *where: str | int) -> None:
    if name not in known:
        raise AtKey(f"{name!r} is not defined under {section}; {nearest(name, known)}", *where)
