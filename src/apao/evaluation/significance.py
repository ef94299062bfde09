"""Whether two experiments differ by more than the choice of users, or of seeds, explains.

Three views of one comparison: the paper's test over seeds, a paired test over users, and an interval
from resampling users. Tests over users take the trained models as they are: they say nothing of what
another seed would give.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from apao.evaluation.metrics import FloatArray

RESAMPLES = 2000
LEVEL = 0.95
SAME = 1e-12
"""Differences between metrics, which are at most 1, that rounding alone explains."""
_CHUNK = 1 << 22
"""Entries of the largest array that resampling makes."""


def seeds_p(values: Sequence[float], reference: float) -> float:
    """Two-sided p of a one-sample t-test: the seeds of an experiment against another one's mean.

    This is the paper's test (its Table 1 stars p <= 0.01). It takes the other's mean as exact.

    Returns:
        p; NaN for fewer than two seeds; as ``_t_test`` where the seeds agree.
    """
    return _t_test(np.asarray(values) - reference)


def paired_p(ours: pd.Series[float], theirs: pd.Series[float]) -> float:
    """Two-sided p of a paired t-test over users; both hold one value for each of the same users.

    Returns:
        p; 1 where no user's value differs; as ``_t_test`` where all differ by the same.
    """
    assert ours.index.equals(theirs.index), "values of other users"
    return _t_test(ours.to_numpy(dtype=np.float64) - theirs.to_numpy(dtype=np.float64))


def _t_test(differences: FloatArray) -> float:
    """Two-sided p that their mean is 0; without any spread 1 where they are 0, NaN (no verdict) else."""
    if len(differences) < 2:
        return float("nan")
    if np.ptp(differences) <= SAME:
        return 1.0 if abs(differences[0]) <= SAME else float("nan")
    # Takes a second, and whatever reads params.yaml imports this module.
    from scipy.stats import ttest_1samp

    return float(ttest_1samp(differences, 0.0).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction over one family of tests (Holm 1979), in the order given.

    The k-th smallest of n is multiplied by n - k + 1, made no smaller than the one before it, and no
    larger than 1. NaN is no test: it stays, and does not count.
    """
    given = np.asarray(p_values, dtype=np.float64)
    corrected = given.copy()
    tests = np.flatnonzero(~np.isnan(given))
    order = tests[np.argsort(given[tests], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(given[order] * factors), 1.0)
    return [float(p) for p in corrected]


def intervals(values: FloatArray, resamples: int = RESAMPLES, seed: int = 0, level: float = LEVEL) -> FloatArray:
    """Percentile bootstrap interval of the mean of each column (Efron and Tibshirani 1993, chapter 13).

    Users (rows) are drawn with replacement, the same draws for all columns. For the interval of a
    difference give a column of differences.

    Args:
        values: (users, columns).
        resamples: number of bootstrap resamples of the users.
        seed: of the draws.
        level: share of the resampled means between the ends.

    Returns:
        (columns, 2): low and high.
    """
    users = len(values)
    rng = np.random.default_rng(seed)
    means = np.empty((resamples, values.shape[1]))
    step = max(1, _CHUNK // users)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        # How often each user was drawn, one row for each resample; int32 draws use half the memory.
        drawn = rng.integers(0, users, size=(rows, users), dtype=np.int32)
        drawn += (np.arange(rows, dtype=np.int32) * users)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * users).reshape(rows, users)
        means[start : start + rows] = counts.astype(np.float64) @ values / users
    tail = 100 * (1 - level) / 2
    return np.percentile(means, [tail, 100 - tail], axis=0).T
