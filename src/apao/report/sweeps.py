"""What Table 5 and Figure 3 share: one hyper-parameter at a time away from the objective's own values."""

from __future__ import annotations

from dataclasses import dataclass

from apao.report.results import Estimate, Results
from apao.study.studies import Curve, SweepStudy

METRIC = "ndcg@10"
STRICT = f"item_{METRIC}"
SYMBOLS = {"beta": "β", "eta": "η", "tau": "τ", "lam": "λ", "xi": "ξ"}


@dataclass(frozen=True)
class Point:
    """One value of a swept key."""

    value: float
    validation: Estimate
    test: Estimate
    strict: Estimate
    """The item-level metric on the test items."""
    own: bool
    """Whether the objective has this value anyway."""


def symbol(key: str) -> str:
    """How a key is written in tables and figures."""
    return SYMBOLS.get(key, key)


def points(study: SweepStudy, results: Results, curve: Curve) -> list[Point]:
    """The points of one curve, by value."""
    own = results.experiment(curve.dataset, curve.backbone, curve.objective, study.seeds)
    found = []
    for value in curve.values:
        runs = [results.normalised(curve.run(value, seed)) for seed in study.seeds]
        validation, test, strict = (
            results.metric(runs, *place) for place in (("valid", METRIC), ("test", METRIC), ("test", STRICT))
        )
        found.append(Point(value, validation, test, strict, own=runs == own))
    return sorted(found, key=lambda point: point.value)


def ranges(study: SweepStudy) -> str:
    """What is swept, in words."""
    parts = [
        f"{symbol(sweep.key)} of {', '.join(sweep.objectives)} in {', '.join(sweep.spelled_values)}"
        for sweep in study.sweeps
    ]
    return "; ".join(parts)
