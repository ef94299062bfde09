"""The k-core of a table of interactions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def k_core(users: NDArray[np.int64], items: NDArray[np.int64], k: int) -> NDArray[np.bool_]:
    """Mask of the interactions that remain after repeatedly dropping users and items with fewer than ``k``.

    Args:
        users: (N,) user numbers from 0.
        items: (N,) item numbers from 0.
        k: minimum number of interactions per user and per item. A repeated purchase counts each time.

    Returns:
        (N,) mask of the largest subset in which every user and every item has at least ``k`` interactions.
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
