"""A catalogue by the dataset's own item ids: what each item is called, its code, and how often training met it.

A run's folder holds the table of the items that it was trained on; ``apao codes --items`` writes one of new items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from apao.codes.itemcodes import ItemCodes
from apao.data.histories import IntArray
from apao.errors import UserError
from apao.files import read_table

OWN_COLUMNS = ("item", "raw_id", "title", "train_count")
"""Of the table, before level_1, level_2, ..."""


@dataclass(frozen=True, eq=False)
class ItemTable:
    """All items in the order of their numbers.

    Attributes:
        raw_ids: (I,) the dataset's own ids, each once.
        titles: (I,) one line each; empty where unknown.
        codes: their codes.
        train_counts: (I,) how often each occurs in the training histories.
    """

    raw_ids: NDArray[np.object_]
    titles: NDArray[np.object_]
    codes: ItemCodes
    train_counts: IntArray

    @cached_property
    def _index(self) -> pd.Index[Any]:
        return pd.Index(self.raw_ids, dtype=object)

    def numbers(self, raw_ids: Sequence[str] | NDArray[np.object_]) -> IntArray:
        """Item number of each raw id (N,); -1 for those that the table lacks."""
        return self._index.get_indexer(pd.Index(raw_ids, dtype=object)).astype(np.int64)

    def with_new(self, new: ItemTable, source: Path) -> ItemTable:
        """These items and, numbered after them, new ones.

        Raises:
            UserError: naming ``source``, where an id of the new ones is known or a code holds a token that the
                vocabulary lacks.
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

    def write(self, path: Path) -> None:
        """Write the parquet table item, raw_id, title, train_count, level_1 .. level_T."""
        own = (np.arange(self.codes.items), self.raw_ids, self.titles, self.train_counts)
        table = pd.DataFrame(dict(zip(OWN_COLUMNS, own, strict=True)))
        table[list(self.codes.level_names)] = self.codes.codes
        table.to_parquet(path, index=False)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the table that ``write`` made.

        Raises:
            UserError: when the file is missing, damaged, or holds something else.
        """
        table = read_table(path, what="catalogue")
        try:
            own, levels = list(OWN_COLUMNS), list(table.columns[len(OWN_COLUMNS) :])
            codes = ItemCodes(table[levels].to_numpy(dtype=np.int64))
            raw_ids, titles, counts = (table[name] for name in own[1:])
            if list(table.columns) != [*own, *codes.level_names] or (table["item"] != np.arange(len(table))).any():
                raise ValueError(f"expected the columns {', '.join(own)} and level_1, level_2, ...")
            if not raw_ids.is_unique or not all(isinstance(text, str) for text in (*raw_ids, *titles)):
                raise ValueError("expected every raw_id once, and titles that are texts")
            return cls(raw_ids.to_numpy(object), titles.to_numpy(object), codes, counts.to_numpy(dtype=np.int64))
        except (ValueError, TypeError, OverflowError, KeyError) as error:
            raise UserError(f"{path}: not a catalogue ({error}); delete it and run its stage again") from error
