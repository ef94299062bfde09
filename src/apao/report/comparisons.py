"""Experiments set against one another: the statistics of each row of a comparison."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import pandas as pd

from apao.evaluation.significance import holm, intervals, paired_p, seeds_p
from apao.report.results import Estimate, Results
from apao.study.runs import Run

ALPHA = 0.01
"""The paper's level of significance, for every test."""
COLUMNS = (
    *("gain_percent", "p_users", "p_users_holm", "p_seeds"),
    *("ci_low", "ci_high", "gain_ci_low", "gain_ci_high"),
)


@dataclass(frozen=True, eq=False)
class Experiment:
    """An objective trained with one backbone on one dataset, once for each seed."""

    backbone: str
    objective: str
    role: str
    """Of the objective in the paper."""
    runs: tuple[Run, ...]
    """None where the collection has none."""
    scores: dict[str, Estimate]
    users: pd.DataFrame
    """Each test user's metrics, means over the seeds."""

    @classmethod
    def read(
        cls,
        results: Results,
        dataset: str,
        backbone: str,
        objective: str,
        seeds: Sequence[int],
        metrics: Sequence[str],
    ) -> Experiment:
        """From the results on disk."""
        runs = results.experiment(dataset, backbone, objective, seeds)
        scores = {metric: results.metric(runs, "test", metric) for metric in metrics}
        role = results.role(Run.of(dataset, backbone, objective, 0))
        users = results.user_scores(runs)[list(metrics)] if runs else pd.DataFrame(columns=list(metrics))
        return cls(backbone, objective, role, tuple(runs), scores, users)

    def gain(self, other: Experiment, metric: str) -> float:
        """How much better than ``other``, in percent of it; NaN where that is 0."""
        base = other.scores[metric].mean
        return 100 * (self.scores[metric].mean / base - 1) if base else math.nan


def best(experiments: Sequence[Experiment], metric: str) -> Experiment | None:
    """The one with the highest mean, the first of equal ones; None of none that was run."""
    return max((one for one in experiments if one.runs), key=lambda one: one.scores[metric].mean, default=None)


def best_other(
    experiments: Sequence[Experiment], one: Experiment, metric: str, roles: Collection[str]
) -> Experiment | None:
    """The best of those with one of the roles, other than ``one`` itself under whatever spelling."""
    return best([other for other in experiments if other.role in roles and other.runs != one.runs], metric)


@dataclass(frozen=True)
class Verdict:
    """One experiment's metric, and how one experiment compares with another by it."""

    low: float = math.nan
    """Bootstrap interval of the metric itself."""
    high: float = math.nan
    other: str = ""
    """The objective compared with; empty where there is none."""
    gain_percent: float = math.nan
    p_users: float = math.nan
    p_users_holm: float = math.nan
    p_seeds: float = math.nan
    gain_low: float = math.nan
    """Bootstrap interval of the difference, in the metric's own unit."""
    gain_high: float = math.nan

    def numbers(self) -> tuple[float, ...]:
        """The values of ``COLUMNS``."""
        return (
            *(self.gain_percent, self.p_users, self.p_users_holm, self.p_seeds),
            *(self.low, self.high, self.gain_low, self.gain_high),
        )

    def starred(self, seeds: int) -> bool:
        """Whether a difference counts: over seeds as in the paper where there are several, else over users."""
        return (self.p_seeds if seeds > 1 else self.p_users_holm) <= ALPHA


Pair = tuple[Experiment, Experiment]
Key = tuple[str, str]
"""Objective and metric."""


def judged(
    experiments: Sequence[Experiment],
    metrics: Sequence[str],
    pair: Callable[[Experiment, str], Pair | None],
) -> dict[Key, Verdict]:
    """Every experiment of one dataset and backbone by every metric, not yet corrected for their number.

    Args:
        experiments: of the same dataset and backbone.
        metrics: code-level and item-level ones.
        pair: (ours, theirs) that the row of an experiment compares, None for no comparison.
    """
    rows = {(one.objective, metric): one for one in experiments for metric in metrics if one.runs}
    absent = {(one.objective, metric): Verdict() for one in experiments for metric in metrics if not one.runs}
    if not rows:
        return absent
    pairs = {(name, metric): found for (name, metric), one in rows.items() if (found := pair(one, metric)) is not None}
    values = [one.users[metric] for (_, metric), one in rows.items()]
    gaps = [ours.users[metric] - theirs.users[metric] for (_, metric), (ours, theirs) in pairs.items()]
    # One call, so that every interval is over the same resamples.
    ends = intervals(np.column_stack([*values, *gaps])).tolist()
    of_value, of_gap = dict(zip(rows, ends, strict=False)), dict(zip(pairs, ends[len(rows) :], strict=True))
    plain = {key: Verdict(*of_value[key]) for key in rows}
    return absent | plain | {key: _compared(plain[key], key, pair, *of_gap[key]) for key, pair in pairs.items()}


def _compared(verdict: Verdict, key: Key, pair: Pair, gain_low: float, gain_high: float) -> Verdict:
    """A row's verdict with the comparison that it makes."""
    (objective, metric), (ours, theirs) = key, pair
    return replace(
        verdict,
        other=(theirs if objective == ours.objective else ours).objective,
        gain_percent=ours.gain(theirs, metric),
        p_users=paired_p(ours.users[metric], theirs.users[metric]),
        p_seeds=seeds_p(ours.scores[metric].values, theirs.scores[metric].mean),
        gain_low=gain_low,
        gain_high=gain_high,
    )


K = TypeVar("K", bound=Hashable)


def corrected(verdicts: Mapping[K, Verdict], family: Callable[[K], Hashable]) -> dict[K, Verdict]:
    """With Holm's correction of the tests over users, within each family."""
    found = dict(verdicts)
    for name in dict.fromkeys(map(family, verdicts)):
        members = [key for key in verdicts if family(key) == name]
        for key, p in zip(members, holm([verdicts[key].p_users for key in members]), strict=True):
            found[key] = replace(found[key], p_users_holm=p)
    return found
