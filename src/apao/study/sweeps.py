"""Sweeps of params.yaml: several values for one hyper-parameter, the others unchanged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Annotated, Self

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator
from typing_extensions import override

from apao.evaluation.metrics import MetricName
from apao.parameters import Model, SpelledObjective
from apao.study.runs import Run, format_value
from apao.study.studies import Names, Seeds, Study, distinct


class Sweep(Model):
    """One hyper-parameter of some objectives, and the values to try for it."""

    objectives: Annotated[tuple[SpelledObjective, ...], Field(min_length=1)]
    """Objectives, spelled as in a run's name; their overrides apply to the whole sweep."""
    key: str
    """Numeric parameter that all of these objectives have."""
    values: Annotated[tuple[float, ...], Field(min_length=1), AfterValidator(distinct)]

    @property
    def spelled_values(self) -> list[str]:
        """The values, spelled as in a run's name."""
        return [format_value(value) for value in self.values]


@dataclass(frozen=True)
class Curve:
    """One sweep of one model: an objective with one key at several values."""

    dataset: str
    backbone: str
    objective: str
    key: str
    values: tuple[float, ...]

    def run(self, value: float, seed: int) -> Run:
        """Run with one of the values."""
        return Run.of(self.dataset, self.backbone, self.objective, seed).with_overrides(**{self.key: value})


class SweepStudy(Study):
    """Several sweeps with every backbone on every dataset.

    params.yaml lists the names of the sweeps; ``references.resolve_sweeps`` replaces them by the entries.
    """

    datasets: Names
    backbones: Names
    sweeps: Annotated[tuple[Annotated[Sweep, WithJsonSchema({"type": "string"})], ...], Field(min_length=1)]
    """Keys of the section ``sweeps``."""
    metric: MetricName = "ndcg@10"
    """Code-level metric by which values are compared."""
    seeds: Seeds

    @model_validator(mode="after")
    def _one_sweep_of_each_key(self) -> Self:
        pairs = [(objective, sweep.key) for sweep in self.sweeps for objective in sweep.objectives]
        for objective, key in pairs:
            if pairs.count((objective, key)) > 1:
                raise ValueError(f"two of the sweeps try values of {key} of {objective}; put all values into one sweep")
        return self

    @property
    def objectives(self) -> list[str]:
        """Objectives of all sweeps, without repeats."""
        return list(dict.fromkeys(objective for sweep in self.sweeps for objective in sweep.objectives))

    @property
    def keys(self) -> list[str]:
        """Hyper-parameters of all sweeps, without repeats."""
        return list(dict.fromkeys(sweep.key for sweep in self.sweeps))

    def curves(self) -> Iterator[Curve]:
        """All curves: every dataset, backbone and objective with each of the objective's sweeps."""
        for dataset, backbone, objective in product(self.datasets, self.backbones, self.objectives):
            for sweep in self.sweeps:
                if objective in sweep.objectives:
                    yield Curve(dataset, backbone, objective, sweep.key, sweep.values)

    @override
    def runs(self) -> list[Run]:
        found = (curve.run(value, seed) for curve, seed in product(self.curves(), self.seeds) for value in curve.values)
        return list(dict.fromkeys(found))
