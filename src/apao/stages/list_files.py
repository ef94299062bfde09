"""Output of recommendations as a text table, JSON lines, CSV or parquet, written as they are computed."""

from __future__ import annotations

import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from typing_extensions import override

from apao.errors import UserError, nearest
from apao.files import atomic_path

TITLE_WIDTH = 48
"""Maximum characters of a title in the table."""


class Writer(ABC):
    """Writes frames with the columns user, rank, item, title, code, logp, shared_by.

    All rows of a user must be in one frame.
    """

    def __init__(self, file: TextIO) -> None:
        self.file = file

    @abstractmethod
    def write(self, frame: pd.DataFrame) -> None:
        """Write the lists of some users."""


class Table(Writer):
    """Aligned text columns, one block per user."""

    @override
    def write(self, frame: pd.DataFrame) -> None:
        for user, rows in frame.groupby("user", sort=False):
            print(f"user {user}", file=self.file)
            cells = [HEADINGS, *(_cells(row) for row in rows.itertuples(index=False))]
            widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
            for row in cells:
                print("", *map(_aligned, row, widths, ALIGNMENT), sep="  ", file=self.file)


HEADINGS, ALIGNMENT = ("rank", "item", "title", "code", "logp", "shared by"), "><<<>>"


def _cells(row: Any) -> tuple[str, ...]:
    title = row.title if len(row.title) <= TITLE_WIDTH else f"{row.title[: TITLE_WIDTH - 1]}…"
    return str(row.rank), row.item, title, row.code, f"{row.logp:.3f}", str(row.shared_by)


def _aligned(cell: str, width: int, alignment: str) -> str:
    return f"{cell:{alignment}{width}}"


class JsonLines(Writer):
    """One object per user: ``{"user": ..., "items": [{"rank": 1, ...}, ...]}``."""

    @override
    def write(self, frame: pd.DataFrame) -> None:
        for user, rows in frame.groupby("user", sort=False):
            record = {"user": user, "items": rows.drop(columns="user").to_dict("records")}
            print(json.dumps(record, ensure_ascii=False), file=self.file)


class Csv(Writer):
    """One row per item."""

    header = True

    @override
    def write(self, frame: pd.DataFrame) -> None:
        frame.to_csv(self.file, index=False, header=self.header, lineterminator="\n")
        self.header = False


TEXTS: dict[str, type[Writer]] = {"table": Table, "json": JsonLines, "csv": Csv}
PARQUET = "parquet"
FORMATS = (*TEXTS, PARQUET)
_OF_SUFFIX = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": PARQUET, ".txt": "table"}


# Stated, because a frame without rows has no types.
SCHEMA = pa.schema(
    {
        "user": pa.string(),
        "rank": pa.int64(),
        "item": pa.string(),
        "title": pa.string(),
        "code": pa.string(),
        "logp": pa.float64(),
        "shared_by": pa.int64(),
    }
)


class Parquet(Writer):
    """One row per item, one row group per frame."""

    def __init__(self, path: Path) -> None:
        self.writer = pq.ParquetWriter(path, SCHEMA)

    @override
    def write(self, frame: pd.DataFrame) -> None:
        self.writer.write_table(pa.Table.from_pandas(frame, SCHEMA, preserve_index=False))

    def close(self) -> None:
        """Finish the file."""
        self.writer.close()


def format_of(chosen: str | None, output: Path | None) -> str:
    """The chosen format, or that of the output's suffix, or ``table``.

    Raises:
        UserError: when the format is unknown, or cannot be printed and there is no output file.
    """
    name = chosen or ("table" if output is None else _OF_SUFFIX.get(output.suffix))
    if name is None:
        known = ", ".join(_OF_SUFFIX)
        raise UserError(f"{output}: no format has this suffix; expected {known}, or --format {'|'.join(FORMATS)}")
    if name not in FORMATS:
        raise UserError(f"--format {name}: unknown format; {nearest(name, FORMATS)}")
    if name == PARQUET and output is None:
        raise UserError("--format parquet: cannot be printed; name a file with --output")
    return name


@contextmanager
def opened(name: str, output: Path | None) -> Iterator[Writer]:
    """Yield a writer of the format ``name`` to the file ``output``, which is written atomically, or to stdout."""
    if output is None:
        yield TEXTS[name](sys.stdout)
        return
    with atomic_path(output) as path:
        if name == PARQUET:
            writer = Parquet(path)
            try:
                yield writer
            finally:
                writer.close()
        else:
            with path.open("w", encoding="utf-8", newline="") as file:
                yield TEXTS[name](file)
