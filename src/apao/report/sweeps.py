"""What Table 5 and Figure 3 share: one hyper-parameter at a time away from the objective's own values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from apao.errors import UserError
from apao.report.results import Estimate, Results
from apao.studies import Sweeps

METRIC = "ndcg@10"
SYMBOLS = {"beta": "β", "eta": "η"}


@dataclass(frozen=True)
class Point:
    """One value of a swept key."""

    value: float
    validation: Estimate
    test: Estimate
    own: bool
    """Whether the objective has this value anyway."""


def swept_keys(study: Sweeps) -> list[str]:
    """The keys a study sweeps.

    Raises:
        UserError: when it sweeps none.
    """
    keys = [key for key in SYMBOLS if getattr(study, key)]
    if not keys:
        name = type(study).__name__.lower()
        raise UserError(f"{name}: sweeps nothing; give its study in params.yaml values for beta or eta")
    return keys


def curve(study: Sweeps, results: Results, dataset: str, backbone: str, objective: str, key: str) -> list[Point]:
    """The points of one sweep in the order of their values."""
    sweeps = [study.sweep(dataset, backbone, objective, key, seed) for seed in study.seeds]
    own = results.experiment(dataset, backbone, objective, study.seeds)
    points = []
    for value, of_seeds in zip(getattr(study, key), zip(*sweeps, strict=True), strict=True):
        runs = [results.normalised(run) for run in of_seeds]
        validation, test = (results.metric(runs, split, METRIC) for split in ("valid", "test"))
        points.append(Point(value, validation, test, runs == own))
    return sorted(points, key=lambda point: point.value)


def curves(study: Sweeps) -> Iterator[tuple[str, str, str]]:
    """Every (dataset, backbone, objective) of a study."""
    for dataset in study.datasets:
        for backbone in study.backbones:
            for objective in study.objectives:
                yield dataset, backbone, objective
