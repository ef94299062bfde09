"""Common parts of tables and figures of sweeps: the points of a curve, the best point, and symbols of keys."""

from __future__ import annotations

from dataclasses import dataclass

from apao.evaluation.metrics import ITEM_LEVEL
from apao.report.results import Estimate, Results
from apao.study.sweeps import Curve, SweepStudy

SYMBOLS = {"beta": "β", "eta": "η", "tau": "τ", "lam": "λ", "xi": "ξ"}


@dataclass(frozen=True)
class Point:
    """One value of a swept key, with the study's metric."""

    value: float
    validation: Estimate
    test: Estimate
    strict: Estimate
    """The item-level metric on the test items."""
    own: bool
    """Whether this is the objective's own value in params.yaml."""


def symbol(key: str) -> str:
    """The symbol of a key in tables and figures."""
    return SYMBOLS.get(key, key)


def points(study: SweepStudy, results: Results, curve: Curve) -> list[Point]:
    """The points of one curve, sorted by value."""
    own = results.experiment(curve.dataset, curve.backbone, curve.objective, study.seeds)
    found = []
    for value in curve.values:
        runs = [results.normalised(curve.run(value, seed)) for seed in study.seeds]
        validation, test = (results.metric(runs, split, study.metric) for split in ("valid", "test"))
        strict = results.metric(runs, "test", f"{ITEM_LEVEL}{study.metric}")
        found.append(Point(value, validation, test, strict, own=runs == own))
    return sorted(found, key=lambda point: point.value)


def best_point(study: SweepStudy, results: Results, curve: Curve) -> Point:
    """The best point on the validation items; the smallest value if several are equal."""
    return max(points(study, results, curve), key=lambda point: point.validation.mean)


def ranges(study: SweepStudy) -> str:
    """A description of the sweeps for notes, such as ``β of ce in 0.1, 0.2``."""
    parts = [
        f"{symbol(sweep.key)} of {', '.join(sweep.objectives)} in {', '.join(sweep.spelled_values)}"
        for sweep in study.sweeps
    ]
    return "; ".join(parts)
