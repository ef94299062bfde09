"""Users' histories in time order, and the examples of training, validation and test.

Shapes: U users, N interactions, B examples. A position is an index into a user's interactions, from 0; a label is an
index into ``PARTS``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from apao.errors import UserError
from apao.files import read_table

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
Split = Literal["valid", "test"]

PARTS = ("train", "valid", "test", "rest")
"""Training; the user's target in validation and in test; interactions that are only history of a later target."""
TRAIN, VALID, TEST, REST = range(4)
HELD_OUT = 2
"""Interactions at the end of a history that leave-one-out holds out."""


@dataclass(frozen=True, eq=False)
class Targets:
    """Per user (U,): the number of leading interactions that train, and the position of each target, -1 for none."""

    training: IntArray
    valid: IntArray
    test: IntArray

    @classmethod
    def leave_one_out(cls, lengths: IntArray) -> Self:
        """The last interaction of each user is the test target, the one before it the validation target."""
        return cls(lengths - HELD_OUT, lengths - HELD_OUT, lengths - 1)

    @classmethod
    def of_labels(cls, labels: IntArray, user: IntArray) -> Self:
        """The same from labels (N,) and the user (N,) of each interaction.

        Raises:
            ValueError: when an interaction has no label or trains without being among its user's first ones, or a
                user has two of a target or one without a history.
        """
        if (labels < 0).any():
            raise ValueError("an interaction belongs to no part")
        position, lengths = positions(user), np.bincount(user)
        training = np.bincount(user, labels == TRAIN).astype(np.int64)
        if not np.array_equal(labels == TRAIN, position < training[user]):
            raise ValueError("an interaction that trains follows one that does not")
        targets = []
        for part in (VALID, TEST):
            rows = np.flatnonzero(labels == part)
            if len(np.unique(user[rows])) < len(rows):
                raise ValueError(f"a user has two interactions of the part {PARTS[part]}")
            if (position[rows] == 0).any():
                raise ValueError(f"a target of the part {PARTS[part]} has no history")
            target = np.full(len(lengths), -1)
            target[user[rows]] = position[rows]
            targets.append(target)
        return cls(training, *targets)


def positions(user: IntArray) -> IntArray:
    """Position (N,) of each interaction in the history of its user, from 0."""
    lengths = np.bincount(user)
    return np.arange(len(user)) - (np.cumsum(lengths) - lengths)[user]


@dataclass(frozen=True, eq=False)
class Histories:
    """All users' items in time order, concatenated user by user.

    Attributes:
        offsets: (U + 1,) index into ``items`` of each user's first item; the last entry is N.
        items: (N,) item numbers.
        targets: what trains and what is evaluated; None: leave-one-out.
    """

    offsets: IntArray
    items: IntArray
    targets: Targets | None = None

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read ``interactions.parquet``.

        Raises:
            UserError: when the file is missing, damaged or empty, or a user has fewer than the three interactions that
                leave-one-out needs.
        """
        table = read_table(path, ["user", "item", "split"])
        if table.empty:
            raise UserError(f"{path}: contains no interactions; choose another dataset or a smaller core")
        try:
            user, item = (table[name].to_numpy(dtype=np.int64) for name in ("user", "item"))
        except (ValueError, TypeError, OverflowError) as error:
            raise UserError(f"{path}: users and items must be whole numbers ({error}); run its stage again") from error
        if user[0] != 0 or not np.isin(np.diff(user), (0, 1)).all() or item.min() < 0:
            raise UserError(f"{path}: expected users 0, 1, 2, ... in this order, items from 0; run its stage again")
        lengths = np.bincount(user)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        if _is_by_time(table):
            try:
                targets = Targets.of_labels(np.asarray(table["split"].cat.codes, dtype=np.int64), user)
            except ValueError as error:
                raise UserError(f"{path}: {error}; run its stage again") from error
            return cls(offsets, item, targets)
        if lengths.min() <= HELD_OUT:
            raise UserError(
                f"{path}: user {lengths.argmin()} has {lengths.min()} interactions; leave-one-out needs at least three"
            )
        return cls(offsets, item)

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
        """Length of the training part of each of ``users``."""
        return self._targets.training[users]

    def training_examples(self) -> tuple[IntArray, IntArray]:
        """User and position of every training example: each item of a training part except the first."""
        ends = self.train_end(np.arange(self.users))
        counts = np.maximum(ends - 1, 0)
        users = np.repeat(np.arange(self.users), counts)
        before = np.cumsum(counts) - counts
        return users, np.arange(len(users)) - before[users] + 1

    def training_targets(self) -> IntArray:
        """Target item of each training example."""
        users, positions = self.training_examples()
        return self.items[self.offsets[users] + positions]

    def evaluation_targets(self, split: Split) -> IntArray:
        """Position (U,) of each user's validation or test item, -1 for none; the history is everything before it."""
        return self._targets.valid if split == "valid" else self._targets.test

    def evaluated(self, split: Split) -> IntArray:
        """The users (B,) who have a validation or test item, in ascending order: all of them with leave-one-out."""
        return np.flatnonzero(self.evaluation_targets(split) >= 0)

    def target_items(self, split: Split, users: IntArray) -> IntArray:
        """Validation or test item (B,) of ``users`` (B,), who have one."""
        return self.items[self.offsets[users] + self.evaluation_targets(split)[users]]

    def train_popularity(self, items: int) -> IntArray:
        """Number of occurrences (items,) of each of ``items`` items in the training parts."""
        user = np.repeat(np.arange(self.users), np.diff(self.offsets))
        return np.bincount(self.items[positions(user) < self.train_end(user)], minlength=items)

    @cached_property
    def _targets(self) -> Targets:
        return self.targets or Targets.leave_one_out(np.diff(self.offsets))


def by_length(users: IntArray, lengths: IntArray, size: int) -> Iterator[IntArray]:
    """``users`` (n,) in batches of ``size``, sorted by the ``lengths`` (n,) of what is read of their histories."""
    ordered = users[np.argsort(lengths, kind="stable")]
    for begin in range(0, len(ordered), size):
        yield ordered[begin : begin + size]


def _is_by_time(table: pd.DataFrame) -> bool:
    """Whether the column ``split`` of interactions has the categories of a split by time."""
    return tuple(getattr(table["split"].dtype, "categories", ())) == PARTS
