"""The user's own table: user, item, timestamp, one row per interaction."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator
from typing_extensions import override

from apao.data.base import SOURCES, RawTables, Source
from apao.data.delimited import SEPARATORS, quoted_by_default, read_rows
from apao.data.fetch import link
from apao.data.ids import Ids
from apao.data.texts import Texts
from apao.data.times import Clock
from apao.errors import UserError

INTERACTIONS, ITEMS = "interactions.table", "items.table"
"""File names in the download folder."""

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
    """Name of the column of times: numbers in one unit, whole or with a fraction, or ISO 8601 dates. Their order is
    kept exactly. Mixed units are refused, as are dates with and without a time zone in one column."""
    text: tuple[Name, ...] = ()
    """Columns with the items' texts: of ``items_path`` if given, else of ``path``, where an item gets the first
    non-empty text among its rows."""
    items_path: Path | None = None
    """A second table with one row per item."""
    separator: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    """Column separator; by default a comma for .csv and a tab for .tsv files."""
    quoted: bool | None = None
    """Whether a value in quotation marks may contain separators and line breaks. If not, a quotation mark is an
    ordinary character. By default true, but false if the separator is a tab, as most programs write TSV."""

    fetched_by: ClassVar[tuple[str, ...]] = ("path", "items_path")
    links: ClassVar[bool] = True
    licence: ClassVar[str] = "A table of the user's own, who knows its terms."

    @model_validator(mode="after")
    def _consistent(self) -> Table:
        if self.items_path is not None and not self.text:
            raise ValueError("text: name the columns of items_path that hold the items' texts")
        columns = (self.user, self.item, self.timestamp, *self.text)
        if len(set(columns)) < len(columns):
            raise ValueError(f"the columns {', '.join(columns)} must be different")
        for key in ("path", "items_path"):
            path = getattr(self, key)
            if path is not None and self.separator is None and path.suffix not in SEPARATORS:
                raise ValueError(f"{key}: {path} ends in none of {', '.join(SEPARATORS)}; add the key separator")
        return self

    @override
    def own_files(self) -> tuple[Path, ...]:
        return tuple(self._files().values())

    def _files(self) -> dict[str, Path]:
        """Paths of the user's files by their names in the download folder."""
        files = {INTERACTIONS: self.path.expanduser()}
        if self.items_path is not None:
            files[ITEMS] = self.items_path.expanduser()
        return files

    def download(self, folder: Path, mirror: Path | None) -> list[str]:
        """Link to the user's files under fixed names, since both may have the same name in different folders."""
        for name, path in self._files().items():
            if not path.is_file():
                raise UserError(f"{path}: not found; name the table in the keys path and items_path of its entry")
            link(path, folder / name)
        return list(self._files())

    def read(self, folder: Path) -> RawTables:
        """Read the tables, refusing the first malformed row: the user can correct it."""
        # Resolve the links, so that errors name the user's own paths.
        path = (folder / INTERACTIONS).resolve()
        beside = self.text if self.items_path is None else ()
        users, items, clock, texts = Ids("user", path), Ids("item", path), Clock(path), Texts(beside)
        warnings: list[str] = []
        rows: list[tuple[str, str]] = []
        columns = (self.user, self.item, self.timestamp, *beside)
        for line, (user, item, time, *text) in self._rows(self.path, path, columns, warnings):
            rows.append((users.read(user, line), items.read(item, line)))
            clock.add(time, line)
            texts.add(rows[-1][1], text)
        tables = [users, items]
        users.check_spelling()
        if self.items_path is None:
            items.check_spelling()
        else:
            texts, listed = self._item_texts((folder / ITEMS).resolve(), items, warnings)
            items.check_spelling(listed)
            tables.append(listed)
        found = RawTables.timed(rows, clock)
        found = replace(
            found,
            notes=tuple(note for ids in tables for note in ids.notes),
            warnings=(*warnings, *found.warnings, *(warning for ids in tables for warning in ids.warnings)),
        )
        return found.with_texts(texts) if self.text else found

    def _item_texts(self, path: Path, wanted: Ids, warnings: list[str]) -> tuple[Texts, Ids]:
        """Texts of the items in ``wanted``, and the ids of all rows."""
        assert self.items_path is not None
        ids, texts = Ids("item", path), Texts(self.text, wanted)
        for line, (item, *text) in self._rows(self.items_path, path, (self.item, *self.text), warnings):
            known = ids.read(item, line)
            if ids.line_of(known) != line:
                raise UserError(
                    f"{path}:{line}: item {known!r} has a row already, line {ids.line_of(known)}; "
                    "expected one row per item"
                )
            texts.add(known, text)
        return texts, ids

    def _rows(
        self, given: Path, path: Path, columns: tuple[str, ...], warnings: list[str]
    ) -> Iterator[tuple[int, list[str]]]:
        separator = self.separator or SEPARATORS[given.suffix]
        quoted = quoted_by_default(separator) if self.quoted is None else self.quoted
        remedy = "name the table's own columns in the dataset's entry (user, item, timestamp, text)"
        return read_rows(path, separator, columns, quoted, warnings, remedy)
