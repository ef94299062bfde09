"""The tables and figures of params.yaml, each as the list of runs it is made from.

A study is one table or figure. Its rule depends on the files of exactly the runs listed here, and its
drawing (``report``) reads no others. ``files`` names what is read of each run.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field, PositiveInt, WithJsonSchema, model_validator
from typing_extensions import override

from apao.errors import UserError
from apao.parameters import Model, Seed, SpelledObjective
from apao.study.paths import FIGURES, RESULTS, TABLES
from apao.study.runs import Run, format_value

Names = Annotated[tuple[str, ...], Field(min_length=1)]
Seeds = Annotated[tuple[Seed, ...], Field(min_length=1)]
MAX_RUNS = 10_000
"""Of one study."""
Catalogue = Annotated[int, Field(ge=2, le=2_000_000)]


class Study(Model, ABC):
    """One table or figure."""

    files: ClassVar[tuple[str, ...]] = ("metrics.json",)
    """Files of each run that the study reads."""

    @abstractmethod
    def runs(self) -> list[Run]:
        """Every run the study needs, in the order of params.yaml, without repeats."""

    def dataset_names(self) -> tuple[str, ...]:
        """Datasets whose sizes or baselines are read besides the runs."""
        return ()

    def inputs(self) -> list[Path]:
        """Files that are read and belong to no run."""
        return []


def _grid(
    datasets: Sequence[str], backbones: Sequence[str], objectives: Sequence[str], seeds: Sequence[int]
) -> list[Run]:
    if len(datasets) * len(backbones) * len(objectives) * len(seeds) > MAX_RUNS:
        raise UserError(f"more than {MAX_RUNS} runs; list fewer datasets, backbones, objectives or seeds")
    runs = [
        Run.of(dataset, backbone, objective, seed)
        for dataset, backbone, objective, seed in product(datasets, backbones, objectives, seeds)
    ]
    return list(dict.fromkeys(runs))


class Table1(Study):
    """Objectives x backbones x datasets, with the untrained baselines."""

    datasets: Names
    backbones: Names
    objectives: Names
    seeds: Seeds

    files: ClassVar[tuple[str, ...]] = ("metrics.json", "ranks.parquet")

    @override
    def runs(self) -> list[Run]:
        return _grid(self.datasets, self.backbones, self.objectives, self.seeds)

    @override
    def dataset_names(self) -> tuple[str, ...]:
        return self.datasets


class Table2(Study):
    """Sizes of the datasets."""

    datasets: Names

    @override
    def runs(self) -> list[Run]:
        return []

    @override
    def dataset_names(self) -> tuple[str, ...]:
        return self.datasets


class Table3(Study):
    """Objectives trained at once against those that start from a trained model (NDCG@10)."""

    datasets: Names
    backbones: Names
    one_stage: tuple[str, ...]
    two_stage: tuple[str, ...]
    seeds: Seeds

    files: ClassVar[tuple[str, ...]] = ("metrics.json", "ranks.parquet")

    @model_validator(mode="after")
    def _some_objective(self) -> Table3:
        if not self.one_stage and not self.two_stage:
            raise ValueError("name an objective in one_stage or two_stage")
        return self

    @override
    def runs(self) -> list[Run]:
        return _grid(self.datasets, self.backbones, (*self.one_stage, *self.two_stage), self.seeds)


class Table4(Study):
    """Seconds an epoch and epochs to convergence."""

    datasets: Names
    backbones: Names
    objectives: Names
    seeds: Seeds

    files: ClassVar[tuple[str, ...]] = ("history.csv",)

    @override
    def runs(self) -> list[Run]:
        return _grid(self.datasets, self.backbones, self.objectives, self.seeds)


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
    """One hyper-parameter at a time away from the objective's own values.

    In params.yaml the sweeps are named; ``references.resolve_sweeps`` puts the entries in their places.
    """

    datasets: Names
    backbones: Names
    sweeps: Annotated[tuple[Annotated[Sweep, WithJsonSchema({"type": "string"})], ...], Field(min_length=1)]
    """Keys of the section ``sweeps``."""
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


class Table5(SweepStudy):
    """The best value of each sweep, by NDCG@10 on the validation items."""


class Figure1(Study):
    """(b) time of beam search against full sorting; (c) the true top items that each beam step keeps."""

    dataset: str
    backbones: Names
    objectives: Names
    seeds: Seeds
    catalogue_sizes: Annotated[tuple[Catalogue, ...], Field(min_length=1)]
    timed_users: PositiveInt = 8
    """Users decoded at each catalogue size."""

    files: ClassVar[tuple[str, ...]] = ("pruning.json",)

    @override
    def runs(self) -> list[Run]:
        return _grid((self.dataset,), self.backbones, self.objectives, self.seeds)

    @override
    def inputs(self) -> list[Path]:
        return [decoding_time_file(self.dataset, backbone) for backbone in self.backbones]


def decoding_time_file(dataset: str, backbone: str) -> Path:
    """Where the timings of Figure 1b for a dataset's recipe are."""
    return RESULTS / dataset / backbone / "decoding_time.json"


class Figure2(Study):
    """(a) APAO without one of its parts; (b) without the loss of one prefix length."""

    dataset: str
    backbone: str
    modules: Annotated[dict[str, str], Field(min_length=1)]
    """Label to objective, drawn in this order."""
    prefixes: Annotated[dict[str, str], Field(min_length=1)]
    seeds: Seeds

    @override
    def runs(self) -> list[Run]:
        objectives = (*self.modules.values(), *self.prefixes.values())
        return _grid((self.dataset,), (self.backbone,), objectives, self.seeds)


class Figure3(SweepStudy):
    """NDCG@10 along each key that is swept."""


class Figure4(Study):
    """NDCG@5 and decoding time against the beam size."""

    datasets: Names
    backbones: Names
    objectives: Names
    beams: Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
    seeds: Seeds

    files: ClassVar[tuple[str, ...]] = ("beams.json",)

    @override
    def runs(self) -> list[Run]:
        return _grid(self.datasets, self.backbones, self.objectives, self.seeds)


class Figure5(Study):
    """Recall@20 of every prefix length, and the gain of the last objective over the best of the others."""

    datasets: Names
    backbones: Names
    objectives: Annotated[tuple[str, ...], Field(min_length=2)]
    seeds: Seeds

    @override
    def runs(self) -> list[Run]:
        return _grid(self.datasets, self.backbones, self.objectives, self.seeds)


class Studies(Model):
    """The studies of one scale; one that is left out is not made."""

    table1: Table1 | None = None
    table2: Table2 | None = None
    table3: Table3 | None = None
    table4: Table4 | None = None
    table5: Table5 | None = None
    figure1: Figure1 | None = None
    figure2: Figure2 | None = None
    figure3: Figure3 | None = None
    figure4: Figure4 | None = None
    figure5: Figure5 | None = None

    def chosen(self) -> dict[str, Study]:
        """Name to study, for those that are configured."""
        return {name: study for name in type(self).model_fields if (study := getattr(self, name)) is not None}

    def named_runs(self) -> Iterator[tuple[str, Run]]:
        """Every (study name, run)."""
        for name, study in self.chosen().items():
            for run in study.runs():
                yield name, run


def outputs(study: str) -> list[Path]:
    """The files a table or figure consists of."""
    if study.startswith("table"):
        return [TABLES / f"{study}.{suffix}" for suffix in ("csv", "md", "tex")]
    return [FIGURES / f"{study}.{suffix}" for suffix in ("pdf", "png", "csv", "rst")]
