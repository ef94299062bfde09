"""A catalogue by the dataset's own item ids: title, code and training frequency of each item.

A run's folder contains the table of the items that it was trained on; ``apao codes --items`` writes one of new items.

Shapes: I items, N ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from apao.codes.itemcodes import ItemCodes
from apao.data.histories import IntArray
from apao.errors import UserError
from apao.files import read_table

OWN_COLUMNS = ("item", "raw_id", "title", "train_count")
"""Columns of the table before level_1, level_2, ..."""


@dataclass(frozen=True, eq=False)
class ItemTable:
    """All items of a catalogue, in the order of their numbers.

    Attributes:
        raw_ids: (I,) the dataset's own ids, unique.
        titles: (I,) titles of one line; empty if unknown.
        codes: code table.
        train_counts: (I,) number of occurrences in the training histories.
    """

    raw_ids: NDArray[np.object_]
    titles: NDArray[np.object_]
    codes: ItemCodes
    train_counts: IntArray

    @cached_property
    def _number_of(self) -> dict[str, int]:
        # Strings keep their hash, so in a large catalogue this finds them six times as fast as an index of pandas.
        return dict(zip(self.raw_ids.tolist(), range(len(self.raw_ids)), strict=True))

    def numbers(self, raw_ids: Sequence[str] | NDArray[np.object_]) -> IntArray:
        """Item number (N,) of each raw id; -1 for unknown ids."""
        numbers = (self._number_of.get(raw_id, -1) for raw_id in raw_ids)
        return np.fromiter(numbers, np.int64, len(raw_ids))

    def with_new(self, new: ItemTable, source: Path) -> ItemTable:
        """The items followed by new ones, whose numbers continue.

        Raises:
            UserError: when a new id already exists, or a new code has a token outside the vocabulary; names
                ``source``.
        """
        known = self.numbers(new.raw_ids)
        if (known >= 0).any():
            raise UserError(f"{source}: item {new.raw_ids[known >= 0][0]!r} is already in the catalogue")
        if new.codes.levels != self.codes.levels or not set(new.codes.vocabulary) <= set(self.codes.vocabulary):
            raise UserError(f"{source}: holds codes that the run's vocabulary lacks; code the items again")
        return ItemTable(
            np.concatenate([self.raw_ids, new.raw_ids]),
            np.concatenate([self.titles, new.titles]),
            ItemCodes(np.concatenate([self.codes.codes, new.codes.codes])),
            np.concatenate([self.train_counts, np.zeros_like(new.train_counts)]),
        )

    def has_items_of(self, other: ItemTable) -> bool:
        """Whether both have the same items with the same codes, in the same order."""
        return np.array_equal(self.raw_ids, other.raw_ids) and np.array_equal(self.codes.codes, other.codes.codes)

    def write(self, path: Path) -> None:
        """Write the parquet table item, raw_id, title, train_count, level_1 .. level_T."""
        own = (np.arange(self.codes.items), self.raw_ids, self.titles, self.train_counts)
        table = pd.DataFrame(dict(zip(OWN_COLUMNS, own, strict=True)))
        table[list(self.codes.level_names)] = self.codes.codes
        table.to_parquet(path, index=False)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a table written by ``write``.

        Raises:
            UserError: when the file is missing, damaged, or not such a table.
        """
        table = read_table(path, what="catalogue")
        try:
            own, levels = list(OWN_COLUMNS), list(table.columns[len(OWN_COLUMNS) :])
            codes = ItemCodes(table[levels].to_numpy(dtype=np.int64))
            raw_ids, titles, counts = (table[name] for name in own[1:])
            if list(table.columns) != [*own, *codes.level_names] or (table["item"] != np.arange(len(table))).any():
                raise ValueError(f"expected the columns {', '.join(own)} and level_1, level_2, ...")
            if not raw_ids.is_unique or not all(isinstance(text, str) for text in (*raw_ids, *titles)):
                raise ValueError("expected unique raw_ids, and titles that are strings")
            return cls(raw_ids.to_numpy(object), titles.to_numpy(object), codes, counts.to_numpy(dtype=np.int64))
        except (ValueError, TypeError, OverflowError, KeyError) as error:
            raise UserError(f"{path}: not a catalogue ({error}); delete it and run its stage again") from error
