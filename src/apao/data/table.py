"""A table of the user's own: user, item, timestamp, one row an interaction."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

import pandas as pd
from pydantic import Field, model_validator
from typing_extensions import override

from apao.data.base import SOURCES, RawTables, Source
from apao.data.delimited import parse_id, parse_timestamp, read_rows
from apao.data.fetch import link
from apao.errors import UserError

INTERACTIONS, ITEMS = "interactions.table", "items.table"
"""Names in the download folder."""
SEPARATORS = {".csv": ",", ".tsv": "\t"}

Name = Annotated[str, Field(min_length=1)]


@SOURCES.register
class Table(Source):
    """Any interactions as a CSV or TSV file with a header; the files are linked to, not copied."""

    source: Literal["csv"]
    path: Path
    user: Name = "user"
    """Name of the column of user ids."""
    item: Name = "item"
    """Name of the column of item ids, in both tables."""
    timestamp: Name = "timestamp"
    """Name of the column of times: whole numbers of any unit, or ISO 8601 dates."""
    text: tuple[Name, ...] = ()
    """Columns with the items' texts, in ``items_path`` if given, else beside the interactions (an item's first row)."""
    items_path: Path | None = None
    """A second table with one row an item."""
    separator: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    """Between columns; by default a comma for .csv and a tab for .tsv files."""

    fetched_by: ClassVar[tuple[str, ...]] = ("path", "items_path")
    links: ClassVar[bool] = True

    @model_validator(mode="after")
    def _consistent(self) -> Table:
        if self.items_path is not None and not self.text:
            raise ValueError("text: name the columns of items_path that hold the items' texts")
        columns = (self.user, self.item, self.timestamp, *self.text)
        if len(set(columns)) < len(columns):
            raise ValueError(f"the columns {', '.join(columns)} must be different ones")
        for key in ("path", "items_path"):
            path = getattr(self, key)
            if path is not None and self.separator is None and path.suffix not in SEPARATORS:
                raise ValueError(f"{key}: {path} ends in none of {', '.join(SEPARATORS)}; give separator")
        return self

    @override
    def own_files(self) -> tuple[Path, ...]:
        return tuple(self._files().values())

    def _files(self) -> dict[str, Path]:
        """The user's own files, by their names in the download folder."""
        files = {INTERACTIONS: self.path.expanduser()}
        if self.items_path is not None:
            files[ITEMS] = self.items_path.expanduser()
        return files

    def download(self, folder: Path, mirror: Path | None) -> list[str]:
        """Link to the user's files, by names of their own: two folders may hold files of one name."""
        for name, path in self._files().items():
            if not path.is_file():
                raise UserError(f"{path}: not found; name the table in the keys path and items_path of its entry")
            link(path, folder / name)
        return list(self._files())

    def read(self, folder: Path) -> RawTables:
        """Read strictly: in a table of one's own the first mistake is worth knowing."""
        rows: list[tuple[str, str, int]] = []
        texts: dict[str, list[str]] = {}
        beside = self.text if self.items_path is None else ()
        columns = (self.user, self.item, self.timestamp, *beside)
        # Through the links to the user's own paths, which the errors name.
        path = (folder / INTERACTIONS).resolve()
        for line, (user, item, time, *text) in read_rows(path, self._separator(self.path), columns):
            where = f"{path}:{line}"
            rows.append((parse_id(user, "user", where), parse_id(item, "item", where), parse_timestamp(time, where)))
            texts.setdefault(item, text)
        if self.items_path is not None:
            texts = self._item_texts((folder / ITEMS).resolve(), self._separator(self.items_path))
        interactions = pd.DataFrame(rows, columns=["user", "item", "timestamp"])
        if not self.text:
            return RawTables(interactions, None)
        items = pd.DataFrame([(item, *text) for item, text in texts.items()], columns=["item", *self.text])
        return RawTables(interactions, items)

    def _item_texts(self, path: Path, separator: str) -> dict[str, list[str]]:
        texts: dict[str, list[str]] = {}
        for line, (item, *text) in read_rows(path, separator, (self.item, *self.text)):
            where = f"{path}:{line}"
            if parse_id(item, "item", where) in texts:
                raise UserError(f"{where}: item {item!r} has a row already; expected one row an item")
            texts[item] = text
        return texts

    def _separator(self, path: Path) -> str:
        return self.separator or SEPARATORS[path.suffix]
