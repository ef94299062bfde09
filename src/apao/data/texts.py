"""The items' texts, collected from tables with one or several rows per item."""

from __future__ import annotations

from collections.abc import Container, Sequence

import pandas as pd


class Texts:
    """The first non-blank value of each column per item.

    Some rows of an item may lack a title, for example after a failed join.
    """

    def __init__(self, columns: Sequence[str], wanted: Container[str] | None = None) -> None:
        """``wanted`` are the items of the interactions (None: all); rows of other items are only counted."""
        self.columns = tuple(columns)
        self.unused = 0
        """Number of rows of other items."""
        self.unused_examples: list[str] = []
        self._wanted = wanted
        self._found: dict[str, list[str]] = {}
        self._differing: dict[str, str] = {}

    def add(self, item: str, values: Sequence[str]) -> None:
        """Add one row: the values of the columns, in their order."""
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
        """Note about items with several texts, if there are any."""
        if not self._differing:
            return []
        item, column = next(iter(self._differing.items()))
        return [
            f"several texts for one item, the first is used ({len(self._differing)} such, first {column} of {item!r})"
        ]

    def table(self) -> pd.DataFrame:
        """Table with the column item and the text columns, one row per item."""
        return pd.DataFrame([(item, *texts) for item, texts in self._found.items()], columns=["item", *self.columns])
