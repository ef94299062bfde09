"""Searches of params.yaml: hyper-parameters of several objectives, with the same number of trials for each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field, PositiveInt, model_validator

from apao.errors import AtKey, UserError, nearest
from apao.parameters import Key, Model, Seed
from apao.study.references import owners
from apao.study.runs import Run, Value
from apao.study.studies import Names

if TYPE_CHECKING:
    from apao.study.params import Params

DIGITS = 3
"""Significant digits of tried numbers, which are part of run names."""
OTHER_LOSS = frozenset({"micro_batch_tokens", "selection"})
"""Keys of the training that change what the validation loss is the mean of."""


class Dimension(Model):
    """The values to try for one hyper-parameter: a range, whole numbers if the parameter is one, or choices."""

    low: float | None = None
    high: float | None = None
    log: bool = False
    """Whether the logarithm is drawn uniformly."""
    choices: Annotated[tuple[Value, ...], Field(min_length=2)] | None = None

    @model_validator(mode="after")
    def _range_or_choices(self) -> Dimension:
        if self.choices is not None:
            if self.low is not None or self.high is not None or self.log:
                raise ValueError("has choices and a range; give one of them")
            if len(set(self.choices)) < len(self.choices):
                raise ValueError("gives a choice twice")
        elif self.low is None or self.high is None:
            raise ValueError("expected low and high, or choices")
        elif self.low >= self.high:
            raise ValueError(f"low {self.low:g} is not below high {self.high:g}")
        elif self.log and self.low <= 0:
            raise ValueError(f"low {self.low:g} has no logarithm; give a positive one, or leave out log")
        return self

    @property
    def ends(self) -> tuple[float, float]:
        """Both ends of the range."""
        assert self.low is not None and self.high is not None
        return self.low, self.high

    @property
    def probes(self) -> tuple[Value, ...]:
        """The choices, or the ends of the range: if these are valid, so is every value of the dimension."""
        return self.choices or self.ends

    def rounded(self, value: Value) -> Value:
        """A value drawn from this dimension, as it is tried: a number with few digits, within the range."""
        if self.choices is not None or not isinstance(value, float):
            return value
        low, high = self.ends
        return min(max(float(f"{value:.{DIGITS}g}"), low), high)


class Search(Model):
    """A search of the best values for each of some objectives, on one dataset and backbone."""

    dataset: str
    backbone: str
    objectives: Names
    """Keys of the section ``objectives``; each is searched by itself."""
    trials: PositiveInt
    """Number of trials of each objective."""
    seed: Seed
    """Seed of all runs, and of the values that are tried."""
    median_stopping: bool = False
    """Whether to stop a trial whose lowest validation loss so far is above the median of the complete trials at that
    epoch, once there are five. Not possible with a key that changes the loss, which cannot be compared then."""
    space: Annotated[dict[str, Dimension], Field(min_length=1)]
    """Values to try, by key: of an objective, of the recipe's training or of the backbone. Objectives without a key are
    searched without it."""

    def run(self, objective: str, **values: Value) -> Run:
        """The run of a trial with these values."""
        return Run.of(self.dataset, self.backbone, objective, self.seed).with_overrides(**values)


def parts_of(params: Params, run: Run) -> dict[str, Model]:
    """The parts of a run's parameters that overrides change."""
    resolved = params.resolve(run)
    return {"objective": resolved.objective, "training": resolved.training, "backbone": resolved.backbone}


def space_of(params: Params, search: Search, objective: str) -> dict[str, Dimension]:
    """The dimensions that an objective has."""
    known = owners(parts_of(params, search.run(objective)))
    return {key: dimension for key, dimension in search.space.items() if key in known}


def check_search(params: Params, name: str, search: Search) -> None:
    """Check that names exist, that every objective has a key to search, and that the ends of all ranges are valid.

    Raises:
        AtKey: for the first mistake.
    """
    where: Key = ("searches", name)
    keys: dict[str, str] = {}
    for i, objective in enumerate(search.objectives):
        at: Key = (*where, "objectives", i)
        if objective not in params.objectives:
            raise AtKey(f"{objective!r} is not defined under objectives; {nearest(objective, params.objectives)}", *at)
        try:
            keys |= owners(parts_of(params, search.run(objective)))
        except UserError as error:
            raise AtKey(str(error), *where) from error
    for key in search.space:
        at = (*where, "space", key)
        if key not in keys:
            raise AtKey(f"unknown key {key!r}; {nearest(key, keys)}", *at)
        if search.median_stopping and (keys[key] == "objective" or key in OTHER_LOSS):
            raise AtKey(
                f"changes the loss, so trials cannot be compared by it; set searches.{name}.median_stopping: false", *at
            )
    for i, objective in enumerate(search.objectives):
        if not space_of(params, search, objective):
            raise AtKey(f"{objective} has none of the keys of the space; leave it out", *where, "objectives", i)
        _check_space(params, name, search, objective)


def _check_space(params: Params, name: str, search: Search, objective: str) -> None:
    """Check the values of one objective, each with the first ones of the keys before it."""
    chosen: dict[str, Value] = {}
    own = params.objectives[objective].tuned
    for key, dimension in space_of(params, search, objective).items():
        at = ("searches", name, "space", key)
        for place in (search.dataset, f"{search.dataset}/{search.backbone}"):
            if key in own.get(place, {}):
                raise AtKey(
                    f"would be overridden by objectives.{objective}.tuned.{place}.{key}; remove one of them", *at
                )
        for value in dimension.probes:
            try:
                params.resolve(search.run(objective, **chosen, **{key: value}))
            except UserError as error:
                raise AtKey(str(error), *at) from error
        chosen[key] = dimension.probes[0]
