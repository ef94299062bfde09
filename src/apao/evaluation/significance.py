"""Significance of the difference between two experiments.

Three methods: the paper's test over seeds, a paired test over users, and an interval from resampling users.
Tests over users treat the trained models as fixed and do not account for the variation over seeds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from apao.data.histories import FloatArray

Ends = tuple[float, float]
"""Low and high end of an interval."""

RESAMPLES = 10_000
LEVEL = 0.95
TAILS = (50 * (1 - LEVEL), 50 * (1 + LEVEL))
"""Ends of the interval in percent of the draws."""
FEWEST_SEEDS = 3
"""For an interval over seeds. From two, Student's t would make it 12.7 standard errors wide to either side."""
UNKNOWN: Ends = (float("nan"), float("nan"))
SAME = 1e-12
"""Differences between metrics (at most 1) up to this size are rounding errors."""
_CHUNK = 1 << 22
"""Entries of the largest array in resampling."""
MOST_KEPT_USERS = 50_000
"""Up to this many users their draws are kept, a byte per user and resample."""


def seeds_p(values: Sequence[float], reference: float) -> float:
    """Two-sided p of a one-sample t-test: the seeds of an experiment against the mean of another.

    This is the paper's test (its Table 1 stars p <= 0.01). It treats the other mean as exact.

    Returns:
        p; NaN for fewer than two seeds. Where all seeds are equal, 1 if they equal ``reference`` and NaN otherwise.
    """
    return _t_test(np.asarray(values) - reference)


def paired_p(ours: pd.Series[float], theirs: pd.Series[float]) -> float:
    """Two-sided p of a paired t-test over users; both series have one value per user, for the same users.

    Returns:
        p; 1 if no user's value differs; NaN if all differ by the same amount.
    """
    assert ours.index.equals(theirs.index), "values of different users"
    return _t_test(ours.to_numpy(dtype=np.float64) - theirs.to_numpy(dtype=np.float64))


def _t_test(differences: FloatArray) -> float:
    """Two-sided p for a mean of 0. If all differences are equal: 1 if they are 0, else NaN (not testable)."""
    if len(differences) < 2:
        return float("nan")
    if np.ptp(differences) <= SAME:
        return 1.0 if abs(differences[0]) <= SAME else float("nan")
    # Imported here because it takes a second, and every command that reads params.yaml imports this module.
    from scipy.stats import ttest_1samp

    return float(ttest_1samp(differences, 0.0).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction over one family of tests (Holm 1979), in the order given.

    The k-th smallest of n is multiplied by n - k + 1, made no smaller than the one before it, and no
    larger than 1. NaN stands for no test: it stays and is not counted.
    """
    given = np.asarray(p_values, dtype=np.float64)
    corrected = given.copy()
    tests = np.flatnonzero(~np.isnan(given))
    order = tests[np.argsort(given[tests], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(given[order] * factors), 1.0)
    return [float(p) for p in corrected]


def intervals(values: FloatArray) -> FloatArray:
    """Percentile bootstrap interval of the mean of each column (Efron and Tibshirani 1993, chapter 13).

    For the interval of a difference pass a column of differences.

    Args:
        values: (users, columns).

    Returns:
        (columns, 2): low and high.
    """
    return np.percentile(_resampled_means(values), TAILS, axis=0).T


def _resampled_means(values: FloatArray) -> FloatArray:
    """Means (RESAMPLES, columns) over users (rows) drawn with replacement, the same draws for all columns."""
    users = len(values)
    draws = _kept_draws(users) if users <= MOST_KEPT_USERS else _draws(users)
    return np.concatenate([counts.astype(np.float64) @ values for counts in draws]) / users


@lru_cache(1)
def _kept_draws(users: int) -> list[NDArray[np.uint8]]:
    """All pieces of ``_draws``, kept because a table has many intervals."""
    return list(_draws(users))


def _draws(users: int) -> Iterator[NDArray[np.uint8]]:
    """How often each resample draws each user, in pieces (some resamples, users) of all RESAMPLES; seeded."""
    rng = np.random.default_rng(0)
    step = max(1, _CHUNK // users)
    for start in range(0, RESAMPLES, step):
        rows = min(step, RESAMPLES - start)
        drawn = rng.integers(0, users, size=(rows, users), dtype=np.int32)
        drawn += (np.arange(rows, dtype=np.int32) * users)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * users).reshape(rows, users).astype(np.uint8)


def gain_interval(ours: FloatArray, theirs: FloatArray) -> Ends:
    """Percentile bootstrap interval of the gain in percent: of the mean of ``ours`` over that of ``theirs``.

    Both (users,) hold one value for each of the same users, who are drawn together. Unknown if so many draws have no
    gain, since ``theirs`` has no hit in them, that they reach into a tail.
    """
    means = _resampled_means(np.column_stack([ours, theirs]))
    some = means[means[:, 1] > 0]
    if len(some) < (1 - TAILS[0] / 100) * len(means):
        return UNKNOWN
    return _ends(np.percentile(100 * (some[:, 0] / some[:, 1] - 1), TAILS))


def seeds_interval(values: Sequence[float]) -> Ends:
    """Student's t interval of the mean over seeds; unknown for fewer than ``FEWEST_SEEDS``."""
    if len(values) < FEWEST_SEEDS:
        return UNKNOWN
    from scipy.stats import t

    half = t.ppf((1 + LEVEL) / 2, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return _ends(np.mean(values) + np.array([-half, half]))


def wider(first: Ends, second: Ends) -> Ends:
    """The wider of two intervals of one quantity, such as over users and over seeds; one of them may be unknown."""
    if np.isnan(first).any():
        return second
    return second if second[1] - second[0] > first[1] - first[0] else first


def _ends(ends: FloatArray) -> Ends:
    low, high = ends.tolist()
    return low, high
