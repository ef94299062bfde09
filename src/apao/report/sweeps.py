"""Common parts of tables and figures of sweeps: the points of a curve, the best point, and symbols of keys."""

from __future__ import annotations

import math
from dataclasses import dataclass

from apao.evaluation.metrics import ITEM_LEVEL
from apao.report.results import Estimate, Results
from apao.study.runs import Run
from apao.study.sweeps import Curve, SweepStudy

SYMBOLS = {"beta": "β", "eta": "η", "tau": "τ", "lam": "λ", "xi": "ξ"}


@dataclass(frozen=True)
class Point:
    """One value of a swept key, with the study's metric."""

    value: float
    runs: list[Run]
    """One for each seed."""
    validation: Estimate
    test: Estimate
    strict: Estimate
    """The item-level metric on the test items."""
    own: bool
    """Whether this is the objective's own value in params.yaml."""


NO_POINT = Point(math.nan, [], Estimate(()), Estimate(()), Estimate(()), own=False)


def symbol(key: str) -> str:
    """The symbol of a key in tables and figures."""
    return SYMBOLS.get(key, key)


def points(study: SweepStudy, results: Results, curve: Curve) -> list[Point]:
    """The points of one curve, sorted by value."""
    own = results.experiment(curve.dataset, curve.backbone, curve.objective, study.seeds)
    found = []
    for value in curve.values:
        runs = [run for seed in study.seeds if results.has(run := results.normalised(curve.run(value, seed)))]
        validation, test = (results.metric(runs, split, study.metric) for split in ("valid", "test"))
        strict = results.metric(runs, "test", f"{ITEM_LEVEL}{study.metric}")
        found.append(Point(value, runs, validation, test, strict, own=runs == own))
    return sorted(found, key=lambda point: point.value)


def best_point(study: SweepStudy, results: Results, curve: Curve) -> Point:
    """The best on the validation items, the smallest value of equally good ones; of no value where none was run."""
    run = [point for point in points(study, results, curve) if point.runs]
    return max(run, key=lambda point: point.validation.mean, default=NO_POINT)


def ranges(study: SweepStudy) -> str:
    """A description of the sweeps for notes, such as ``β of ce in 0.1, 0.2``."""
    parts = [
        f"{symbol(sweep.key)} of {', '.join(sweep.objectives)} in {', '.join(sweep.spelled_values)}"
        for sweep in study.sweeps
    ]
    return "; ".join(parts)
