"""Whether two experiments differ by more than the choice of users explains."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import ttest_rel


def user_metric(ranks: pd.Series[int], metric: str) -> pd.Series[float]:
    """A code-level metric, such as ``ndcg@10``, of each user; ranks start at 1, 0 is not found."""
    kind, _, cutoff = metric.partition("@")
    hit = ((ranks > 0) & (ranks <= int(cutoff))).astype(float)
    return hit if kind == "recall" else hit / np.log2(ranks.clip(lower=1) + 1)


def paired_p(ours: Sequence[pd.Series[int]], theirs: Sequence[pd.Series[int]], metric: str) -> float:
    """Two-sided p of a paired t-test over users, each user's metric averaged over the seeds.

    Args:
        ours: ranks by user, one series for each seed; the same users everywhere.
        theirs: likewise, of the experiment to compare with.
        metric: a code-level metric.

    Returns:
        p; 1 where no user's metric differs.
    """
    first, second = (
        pd.DataFrame({seed: user_metric(ranks, metric) for seed, ranks in enumerate(one)}).mean(axis=1)
        for one in (ours, theirs)
    )
    first, second = first.align(second, join="inner")
    if (first == second).all():
        return 1.0
    return float(ttest_rel(first, second).pvalue)
