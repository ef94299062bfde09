"""Statistics of the comparison of experiments, for the rows of tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import pandas as pd

from apao.evaluation.significance import (
    FEWEST_SEEDS,
    RESAMPLES,
    UNKNOWN,
    Ends,
    holm,
    intervals,
    paired_p,
    seeds_interval,
    seeds_p,
    wider,
)
from apao.report.results import Estimate, Results
from apao.study.runs import Run

ALPHA = 0.01
"""Significance level of every test, the paper's."""
COLUMNS = (
    *("gain_percent", "p_users", "p_users_holm", "p_seeds"),
    *("ci_low", "ci_high", "gain_ci_low", "gain_ci_high"),
)

INTERVALS = (
    f"Intervals: 95 % percentile bootstrap ({RESAMPLES:,} resamples of the test users, metrics averaged over seeds). "
    f"With {FEWEST_SEEDS} seeds or more the 95 % t-interval over the seeds (gains: of the differences with the same "
    "seed), if that is wider."
)
"""How the intervals of ``Verdict`` are computed, for the notes of tables."""


@dataclass(frozen=True, eq=False)
class Experiment:
    """An objective trained with one backbone on one dataset, once per seed."""

    backbone: str
    objective: str
    role: str
    """The objective's role in the paper."""
    runs: tuple[Run, ...]
    """Empty if the collection has none of them."""
    scores: dict[str, Estimate]
    """Metric to its values over the seeds, on the test items."""
    users: pd.DataFrame
    """Metrics of each test user (rows: users, columns: metrics), means over the seeds."""
    in_paper: str
    """How the paper's tables name the objective: without overrides that equal params.yaml's values."""

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
        """Read an experiment from the result files of its runs."""
        runs = results.experiment(dataset, backbone, objective, seeds)
        scores = {metric: results.metric(runs, "test", metric) for metric in metrics}
        role = results.role(Run.of(dataset, backbone, objective, 0))
        in_paper = results.name_in_paper(dataset, backbone, objective)
        users = results.user_scores(runs)[list(metrics)] if runs else pd.DataFrame(columns=list(metrics))
        return cls(backbone, objective, role, tuple(runs), scores, users, in_paper)

    def gain(self, other: Experiment, metric: str) -> float:
        """Gain over ``other`` in percent of the other's mean; NaN where that is 0."""
        return gain_percent(self.scores[metric].mean, other.scores[metric].mean)


def gain_percent(ours: float, theirs: float) -> float:
    """By how many percent ``ours`` is above ``theirs``; NaN where that is 0."""
    return 100 * (ours / theirs - 1) if theirs else math.nan


def best(experiments: Sequence[Experiment], metric: str) -> Experiment | None:
    """The experiment with the highest mean, the first of equal ones; None if none has runs."""
    return max((one for one in experiments if one.runs), key=lambda one: one.scores[metric].mean, default=None)


def best_other(
    experiments: Sequence[Experiment], one: Experiment, metric: str, roles: Collection[str]
) -> Experiment | None:
    """The best experiment with one of ``roles`` and other runs than ``one`` (which may be listed under two names)."""
    return best([other for other in experiments if other.role in roles and other.runs != one.runs], metric)


@dataclass(frozen=True)
class Verdict:
    """Statistics of one metric of one experiment, and of its comparison with another experiment."""

    low: float = math.nan
    """Interval of the metric itself: over the users, or, where that is wider, over the seeds."""
    high: float = math.nan
    other: str = ""
    """The objective compared with; empty if there is no comparison."""
    gain_percent: float = math.nan
    p_users: float = math.nan
    p_users_holm: float = math.nan
    p_seeds: float = math.nan
    gain_low: float = math.nan
    """Interval of the difference, in units of the metric: over the users, or, where that is wider, over the seeds."""
    gain_high: float = math.nan

    def numbers(self) -> tuple[float, ...]:
        """The values of ``COLUMNS``."""
        return (
            *(self.gain_percent, self.p_users, self.p_users_holm, self.p_seeds),
            *(self.low, self.high, self.gain_low, self.gain_high),
        )

    def starred(self, seeds: int) -> bool:
        """Whether the difference is significant: as in the paper if there are several seeds, else over the users."""
        return (self.p_seeds if seeds > 1 else self.p_users_holm) <= ALPHA


Pair = tuple[Experiment, Experiment]
Key = tuple[str, str]
"""Objective and metric."""


def judged(
    experiments: Sequence[Experiment],
    metrics: Sequence[str],
    pair: Callable[[Experiment, str], Pair | None],
) -> dict[Key, Verdict]:
    """Statistics of every experiment and metric, without correction for the number of comparisons.

    Args:
        experiments: of one dataset and backbone.
        metrics: code-level and item-level metrics.
        pair: (ours, theirs) to compare in the row of an experiment and metric; None for no comparison.
    """
    rows = {(one.objective, metric): one for one in experiments for metric in metrics if one.runs}
    absent = {(one.objective, metric): Verdict() for one in experiments for metric in metrics if not one.runs}
    if not rows:
        return absent
    pairs = {(name, metric): found for (name, metric), one in rows.items() if (found := pair(one, metric)) is not None}
    values = {("value", *key): one.users[key[1]] for key, one in rows.items()}
    gaps = {("gap", *key): ours.users[key[1]] - theirs.users[key[1]] for key, (ours, theirs) in pairs.items()}
    columns = values | gaps
    # One call, so that every interval is over the same resamples.
    interval = dict(zip(columns, intervals(np.column_stack([*columns.values()])).tolist(), strict=True))
    plain = {
        key: Verdict(*wider(interval["value", *key], seeds_interval(one.scores[key[1]].values)))
        for key, one in rows.items()
    }
    for key, both in pairs.items():
        plain[key] = _compared(plain[key], key, both, *wider(interval["gap", *key], _gain_over_seeds(both, key[1])))
    return absent | plain


def _gain_over_seeds(pair: Pair, metric: str) -> Ends:
    """Interval of the difference over the seeds; unknown unless both have the same ones, and enough of them."""
    ours, theirs = pair
    if [run.seed for run in ours.runs] != [run.seed for run in theirs.runs]:
        return UNKNOWN
    return seeds_interval(np.subtract(ours.scores[metric].values, theirs.scores[metric].values).tolist())


def _compared(verdict: Verdict, key: Key, pair: Pair, gain_low: float, gain_high: float) -> Verdict:
    """``verdict`` with the statistics of the comparison added."""
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
    """The verdicts with Holm's correction of the tests over users, within each family."""
    found = dict(verdicts)
    for name in dict.fromkeys(map(family, verdicts)):
        members = [key for key in verdicts if family(key) == name]
        for key, p in zip(members, holm([verdicts[key].p_users for key in members]), strict=True):
            found[key] = replace(found[key], p_users_holm=p)
    return found
