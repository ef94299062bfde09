"""Interactions of one user with equal timestamps: finding them, ordering them, detecting a systematic order.

Shapes: N interactions, sorted by user, then time, then tie rule.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

if TYPE_CHECKING:
    from apao.data.prepared import Prepared

FEWEST_PAIRS = 20
"""With fewer pairs no order is considered systematic."""


def tied(interactions: pd.DataFrame) -> NDArray[np.bool_]:
    """Mask (N,) of the interactions whose user has another one with the same timestamp."""
    return interactions.duplicated(["user", "timestamp"], keep=False).to_numpy()


def drawn(users: pd.Series[str], items: pd.Series[str], seed: int) -> NDArray[np.uint64]:
    """Pseudo-random number (N,) per row that depends only on its user, item and the seed.

    Sorting by it gives a random order of a user's items that does not depend on the order of the rows.
    """
    mixed = _hashed(users, seed) * np.uint64(0x9E3779B97F4A7C15) + _hashed(items, seed)
    # The finalizer of splitmix64: every bit of the sum affects every bit of the result.
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _hashed(ids: pd.Series[str], seed: int) -> NDArray[np.uint64]:
    """Machine-independent hashes of ids."""
    codes, unique = pd.factorize(ids)
    digests = b"".join(hashlib.blake2b(f"{seed} {each}".encode(), digest_size=8).digest() for each in unique)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)[codes]


def sorted_by_item(prepared: Prepared) -> float:
    """Largest share of neighbouring tied interactions that agree with one order of all items; 0 if there are few.

    The orders are those of a file sorted or grouped by item: ids ascending or descending (as numbers if all are), or
    the items' first appearance. About 0.5 if ties have no systematic order.
    """
    table = prepared.interactions
    user, item, time = (table[name].to_numpy() for name in ("user", "item", "timestamp"))
    pair = (user[1:] == user[:-1]) & (time[1:] == time[:-1]) & (item[1:] != item[:-1])
    if pair.sum() < FEWEST_PAIRS:
        return 0.0
    shares = []
    for rank in (np.arange(len(prepared.items)), _rank(prepared.items["raw_id"])):
        ascending = float((rank[item[1:]] > rank[item[:-1]])[pair].mean())
        shares += [ascending, 1 - ascending]
    return max(shares)


def _rank(ids: pd.Series[str]) -> NDArray[np.int64]:
    """Rank of each id, sorted as numbers if all ids are whole numbers."""
    numbers = all(each.isascii() and each.isdigit() and len(each) < 19 for each in ids)
    keys = [(int(each) if numbers else 0, each) for each in ids]
    return np.argsort(sorted(range(len(ids)), key=keys.__getitem__))


def newest_first(prepared: Prepared) -> float:
    """Share of a user's neighbouring rows with different times that go back in time; 0 if there are few."""
    table = prepared.interactions
    order = np.lexsort((prepared.rows, table["user"]))
    user, time = (table[name].to_numpy()[order] for name in ("user", "timestamp"))
    steps = np.sign(np.diff(time))[user[1:] == user[:-1]]
    steps = steps[steps != 0]
    return float((steps < 0).mean()) if len(steps) >= FEWEST_PAIRS else 0.0
