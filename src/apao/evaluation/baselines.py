"""Untrained baselines: most-popular and random.

Like a trained model, a baseline has code-level metrics, where a hit is the target's code, and item-level
metrics, where a hit is the target itself. Without collisions both are equal.

Shapes: I items, U distinct codes, N test users.
"""

from __future__ import annotations

import numpy as np

from apao.data.histories import IntArray
from apao.evaluation.metrics import CODE_LEVEL, CUTOFFS, ITEM_LEVEL, METRICS


def most_popular_ranks(popularity: IntArray, code_of_item: IntArray, targets: IntArray) -> tuple[IntArray, IntArray]:
    """Ranks, from 1, of each target's code and of each target in the list of the most popular items.

    Items are sorted by training count, ties by item number. A code has the place of its most popular item in the
    list of codes.

    Args:
        popularity: training count of each item (I,).
        code_of_item: index of each item's code (I,), below U.
        targets: items (N,).

    Returns:
        Code ranks (N,), 1 to U, and item ranks (N,), 1 to I.
    """
    order = np.argsort(-popularity, kind="stable")
    first_place = np.unique(code_of_item[order], return_index=True)[1]  # (U,) place of each code's first item
    # The rank of each item or code is its place in the order, which argsort finds.
    code_rank, item_rank = np.argsort(np.argsort(first_place)) + 1, np.argsort(order) + 1
    return code_rank[code_of_item[targets]], item_rank[targets]


def random_metrics(codes: int, items: int) -> dict[str, float]:
    """Expectation of every metric for a uniformly random ranking, of codes at code level and of items at item level."""
    return {
        f"{level}{kind}@{k}": float(metric.gain(np.arange(min(k, count)) + 1).sum()) / count
        for k in CUTOFFS
        for level, count in ((CODE_LEVEL, codes), (ITEM_LEVEL, items))
        for kind, metric in METRICS.items()
    }
