"""Sweeps of params.yaml: one hyper-parameter at a time away from an objective's own values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Annotated

from pydantic import Field, WithJsonSchema
from typing_extensions import override

from apao.evaluation.metrics import MetricName
from apao.parameters import Model, SpelledObjective
from apao.study.runs import Run, format_value
from apao.study.studies import Names, Seeds, Study


class Sweep(Model):
    """One hyper-parameter of some objectives, and the values to try in its place."""

    objectives: Annotated[tuple[SpelledObjective, ...], Field(min_length=1)]
    """Each spelled as in a run; what it overrides holds in the whole sweep."""
    key: str
    """A numeric parameter that all of them have."""
    values: Annotated[tuple[float, ...], Field(min_length=1)]

    @property
    def spelled_values(self) -> list[str]:
        """The values as in a run's name."""
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
        """The run at one of the values."""
        return Run.of(self.dataset, self.backbone, self.objective, seed).with_overrides(**{self.key: value})


class SweepStudy(Study):
    """Several sweeps of every backbone on every dataset.

    In params.yaml the sweeps are named; ``references.resolve_sweeps`` puts the entries in their places.
    """

    datasets: Names
    backbones: Names
    sweeps: Annotated[tuple[Annotated[Sweep, WithJsonSchema({"type": "string"})], ...], Field(min_length=1)]
    """Keys of the section ``sweeps``."""
    metric: MetricName = "ndcg@10"
    """The code-level metric by which values are compared."""
    seeds: Seeds

    @property
    def objectives(self) -> list[str]:
        """Those of all sweeps."""
        return list(dict.fromkeys(objective for sweep in self.sweeps for objective in sweep.objectives))

    @property
    def keys(self) -> list[str]:
        """Those of all sweeps."""
        return list(dict.fromkeys(sweep.key for sweep in self.sweeps))

    def curves(self) -> Iterator[Curve]:
        """Every model with each of its objective's sweeps."""
        for dataset, backbone, objective in product(self.datasets, self.backbones, self.objectives):
            for sweep in self.sweeps:
                if objective in sweep.objectives:
                    yield Curve(dataset, backbone, objective, sweep.key, sweep.values)

    @override
    def runs(self) -> list[Run]:
        found = (curve.run(value, seed) for curve, seed in product(self.curves(), self.seeds) for value in curve.values)
        return list(dict.fromkeys(found))
