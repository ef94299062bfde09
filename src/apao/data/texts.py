"""The items' texts, gathered from rows of which an item may have several."""

from __future__ import annotations

from collections.abc import Container, Sequence

import pandas as pd


class Texts:
    """Of every item the first value of each column that is not blank.

    A title may be missing in some rows of an item: a join that missed, an old client.
    """

    def __init__(self, columns: Sequence[str], wanted: Container[str] | None = None) -> None:
        """``wanted``: the items of the interactions; rows of others are counted and left out. None: all."""
        self.columns = tuple(columns)
        self.unused = 0
        """Rows of items that are not wanted."""
        self.unused_examples: list[str] = []
        self._wanted = wanted
        self._found: dict[str, list[str]] = {}
        self._differing: dict[str, str] = {}

    def add(self, item: str, values: Sequence[str]) -> None:
        """Take in one row: the values of the columns, in their order."""
        if self._wanted is not None and item not in self._wanted:
            self.unused += 1
            if len(self.unused_examples) < 2:
                self.unused_examples.append(item)
            return
        found = self._found.setdefault(item, list(values))
        for i, value in enumerate(values):
            if value != found[i] and value.strip():
                if found[i].strip():
                    self._differing.setdefault(item, self.columns[i])
                else:
                    found[i] = value

    @property
    def notes(self) -> list[str]:
        """What is worth saying of them."""
        if not self._differing:
            return []
        item, column = next(iter(self._differing.items()))
        return [
            f"several texts for one item, the first is taken ({len(self._differing)} such, first {column} of {item!r})"
        ]

    def table(self) -> pd.DataFrame:
        """Columns item and those of the texts, one row per item."""
        return pd.DataFrame([(item, *texts) for item, texts in self._found.items()], columns=["item", *self.columns])
