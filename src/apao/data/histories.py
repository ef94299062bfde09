"""Users' histories in time order, and the leave-one-out examples.

Shapes: U users, N interactions, B examples. A position is an index into a user's interactions, from 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from apao.errors import UserError
from apao.files import read_table

IntArray = NDArray[np.int64]
Split = Literal["valid", "test"]

HELD_OUT = 2
"""A user's last interaction is the test item, the one before it the validation item."""


@dataclass(frozen=True)
class Histories:
    """All users' items in time order, concatenated user by user.

    Attributes:
        offsets: (U + 1,) index into ``items`` of each user's first item; the last entry is N.
        items: (N,) item numbers.
    """

    offsets: IntArray
    items: IntArray

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read ``interactions.parquet``.

        Raises:
            UserError: when the file is missing, damaged or empty, or a user has fewer than the three
                interactions that leave-one-out needs.
        """
        table = read_table(path, ["user", "item"])
        if table.empty:
            raise UserError(f"{path}: contains no interactions; choose another dataset or a smaller core")
        try:
            user, item = (table[name].to_numpy(dtype=np.int64) for name in ("user", "item"))
        except (ValueError, TypeError, OverflowError) as error:
            raise UserError(f"{path}: users and items must be whole numbers ({error}); run its stage again") from error
        if user[0] != 0 or not np.isin(np.diff(user), (0, 1)).all() or item.min() < 0:
            raise UserError(f"{path}: expected users 0, 1, 2, ... in this order, items from 0; run its stage again")
        lengths = np.bincount(user)
        if lengths.min() <= HELD_OUT:
            raise UserError(
                f"{path}: user {lengths.argmin()} has {lengths.min()} interactions; leave-one-out needs at least three"
            )
        return cls(np.concatenate([[0], np.cumsum(lengths)]), item)

    @property
    def users(self) -> int:
        """Number of users U."""
        return len(self.offsets) - 1

    def newest(self, users: IntArray, most: int) -> IntArray:
        """Last ``most`` items (B, L) of each of ``users``, oldest first, padded with -1 on the right."""
        lengths = np.minimum(self.offsets[users + 1] - self.offsets[users], most)[:, None]
        column = np.arange(lengths.max(initial=0))
        places = self.offsets[users + 1][:, None] - lengths + column
        return np.where(column < lengths, self.items[np.minimum(places, len(self.items) - 1)], -1)

    def rows_of(self, users: IntArray) -> tuple[IntArray, IntArray]:
        """All items of ``users``: for each item the index of its user in ``users`` (n,), and the item (n,)."""
        lengths = self.offsets[users + 1] - self.offsets[users]
        rows = np.repeat(np.arange(len(users)), lengths)
        within = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return rows, self.items[self.offsets[users][rows] + within]

    def train_end(self, users: IntArray) -> IntArray:
        """Length of the training part of each of ``users``: the position of the validation item."""
        return self.offsets[users + 1] - self.offsets[users] - HELD_OUT

    def training_examples(self) -> tuple[IntArray, IntArray]:
        """User and position of every training example: each item of a training part except the first."""
        ends = self.train_end(np.arange(self.users))
        counts = ends - 1
        users = np.repeat(np.arange(self.users), counts)
        before = np.cumsum(counts) - counts
        return users, np.arange(len(users)) - before[users] + 1

    def training_targets(self) -> IntArray:
        """Target item of each training example."""
        users, positions = self.training_examples()
        return self.items[self.offsets[users] + positions]

    def evaluation_targets(self, split: Split) -> IntArray:
        """Position (U,) of each user's validation or test item; the history is everything before it."""
        return self.train_end(np.arange(self.users)) + (split == "test")

    def train_popularity(self, items: int) -> IntArray:
        """Number of occurrences (items,) of each of ``items`` items in the training parts."""
        position = np.arange(len(self.items)) - np.repeat(self.offsets[:-1], np.diff(self.offsets))
        ends = np.repeat(self.train_end(np.arange(self.users)), np.diff(self.offsets))
        return np.bincount(self.items[position < ends], minlength=items)
