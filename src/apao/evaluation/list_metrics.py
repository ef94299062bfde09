"""Properties of recommended lists beside their accuracy: which items they hold, and whom they serve.

Shapes: I items, B users, N rows of all lists.

Popularity is the number of occurrences in the training histories. The *head* are the most popular ``HEAD_SHARE`` of the
items, *cold* items occur in no training history, the *tail* is the rest.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from apao.data.histories import IntArray

LIST_LENGTH = 20
HEAD_SHARE = 0.2
GROUPS = ("head", "tail", "cold")
RECALL = f"item_recall@{LIST_LENGTH}"
"""Per-user metric whose mean over the targets of each group is given."""
LIST_METRICS = {
    f"coverage@{LIST_LENGTH}": "share of the items that are in at least one list",
    f"gini@{LIST_LENGTH}": "Gini index of how often each item is in a list: 0 for all equally often, 1 for one alone",
    f"popularity@{LIST_LENGTH}": "mean popularity of the items in the lists (ARP)",
    **{f"{group}_{RECALL}": f"{RECALL} of the users whose target is a {group} item" for group in GROUPS},
}
"""Name to meaning."""


def list_metrics(
    listed: IntArray, popularity: IntArray, targets: IntArray, recalls: NDArray[np.float64]
) -> dict[str, float | None]:
    """All of ``LIST_METRICS``; None for the recall of a group that has no target.

    Args:
        listed: (N,) items of all lists.
        popularity: (I,) of every item.
        targets: (B,) target of each user.
        recalls: (B,) ``RECALL`` of each user.
    """
    counts = np.bincount(listed, minlength=len(popularity))
    groups = popularity_groups(popularity)[targets]
    return {
        f"coverage@{LIST_LENGTH}": float((counts > 0).mean()),
        f"gini@{LIST_LENGTH}": gini(counts),
        f"popularity@{LIST_LENGTH}": float(popularity[listed].mean()),
        **{
            f"{name}_{RECALL}": float(recalls[groups == group].mean()) if (groups == group).any() else None
            for group, name in enumerate(GROUPS)
        },
    }


def popularity_groups(popularity: IntArray) -> IntArray:
    """Index into ``GROUPS`` of each item (I,); of equally popular items, the lower number is first in the head."""
    most_popular_first = np.argsort(-popularity, kind="stable")
    groups = np.full(len(popularity), GROUPS.index("tail"))
    groups[most_popular_first[: math.ceil(HEAD_SHARE * len(popularity))]] = GROUPS.index("head")
    groups[popularity == 0] = GROUPS.index("cold")
    return groups


def gini(counts: IntArray) -> float:
    """Gini index of counts (I,), at least one of them positive."""
    ascending, number = np.sort(counts), len(counts)
    return float(((2 * np.arange(1, number + 1) - number - 1) * ascending).sum() / (number * ascending.sum()))
