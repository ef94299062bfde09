"""What recommending without a model achieves.

Like a trained model, a baseline has code-level metrics, in which a hit is the target's code, and item-level
ones, in which it is the target itself. Without collisions both are the same numbers.

Shapes: I items, U distinct codes, N test users.
"""

from __future__ import annotations

import numpy as np

from apao.data.histories import IntArray
from apao.evaluation.metrics import CODE_LEVEL, CUTOFFS, ITEM_LEVEL, METRICS


def most_popular_ranks(popularity: IntArray, code_of_item: IntArray, targets: IntArray) -> tuple[IntArray, IntArray]:
    """Ranks from 1 of each target's code and of each target, in the list of the most popular items.

    Items are listed by training count, ties by item id. The list of codes is what is left of it when the
    code of every item is written down where it comes first, so a code stands where its most popular item does.

    Args:
        popularity: training count of each item (I,).
        code_of_item: index of each item's code (I,), below U.
        targets: items (N,).

    Returns:
        Code ranks (N,), 1 to U, and item ranks (N,), 1 to I.
    """
    order = np.argsort(-popularity, kind="stable")
    first_place = np.unique(code_of_item[order], return_index=True)[1]  # of each code (U,)
    return _rank_of(np.argsort(first_place))[code_of_item[targets]], _rank_of(order)[targets]


def _rank_of(order: IntArray) -> IntArray:
    """Rank from 1 of each entry of a list that holds 0 .. len - 1."""
    ranks = np.empty_like(order)
    ranks[order] = np.arange(1, len(order) + 1)
    return ranks


def random_metrics(codes: int, items: int) -> dict[str, float]:
    """Expectation of every metric for a uniformly random ranking: of the codes, and at item level of the items."""
    return {
        f"{level}{kind}@{k}": float(metric.gain(np.arange(min(k, count)) + 1).sum()) / count
        for k in CUTOFFS
        for level, count in ((CODE_LEVEL, codes), (ITEM_LEVEL, items))
        for kind, metric in METRICS.items()
    }
