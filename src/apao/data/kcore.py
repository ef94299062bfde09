"""The k-core of a table of interactions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def k_core(users: NDArray[np.int64], items: NDArray[np.int64], k: int) -> NDArray[np.bool_]:
    """Which interactions stay when users and items with fewer than ``k`` are dropped until none is left.

    Args:
        users: (N,) ids from 0.
        items: (N,) ids from 0.
        k: least number of interactions of a user and of an item. A repeated purchase counts each time.

    Returns:
        (N,) mask, the largest subset in which every user and every item has at least ``k``.
    """
    kept = np.arange(len(users))
    while len(kept):
        enough = (np.bincount(users[kept])[users[kept]] >= k) & (np.bincount(items[kept])[items[kept]] >= k)
        if enough.all():
            break
        kept = kept[enough]
    mask = np.zeros(len(users), dtype=np.bool_)
    mask[kept] = True
    return mask
