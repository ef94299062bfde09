"""Reading delimited tables with a header line: string values, and the line number of every row."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from apao.errors import UserError, nearest
from apao.files import missing

MAX_CELL = 1 << 24
"""Maximum characters per cell; the csv module's own limit is 131,072."""


def read_rows(
    path: Path, separator: str, columns: Sequence[str], quoted: bool = True, warnings: list[str] | None = None
) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and the values of ``columns`` for every row; blank lines are skipped.

    The type in a header such as ``user_id:token`` is ignored. With ``quoted`` a value in quotation marks may contain
    separators and line breaks; without, a quotation mark is an ordinary character. After the last row, a warning is
    appended to ``warnings`` if the other setting seems to be the right one.

    Raises:
        UserError: naming file and line, when the file is missing or not UTF-8, a column is missing from the header,
            or the number of values in a row differs from the header's.
    """
    line = 0
    csv.field_size_limit(MAX_CELL)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(
                file, delimiter=separator, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE, strict=True
            )
            header = next(reader, [])
            names = [name.partition(":")[0].strip() for name in header]
            wanted = _places(path, names, columns)
            line = reader.line_num
            doubtful, first_doubtful = 0, 0
            for row in reader:
                # A quoted value may contain line breaks: the row starts after the last line of the previous row.
                first, line = line + 1, reader.line_num
                if len(row) == len(names):
                    values = [row[index] for index in wanted]
                    if _holds_rows(row, separator) if quoted and line > first else not quoted and _in_quotes(values):
                        doubtful, first_doubtful = doubtful + 1, first_doubtful or first
                    yield first, values
                elif row:
                    hint = _hint(quoted) if any('"' in value for value in row) else ""
                    raise UserError(f"{path}:{first}: {len(row)} values, but the header has {len(names)} columns{hint}")
            if doubtful and warnings is not None:
                warnings.append(f"{path}:{first_doubtful}: {_doubt(quoted, doubtful)}")
    except FileNotFoundError as error:
        raise missing(path) from error
    except IsADirectoryError as error:
        raise UserError(f"{path}: is a folder, expected a table") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 ({error.reason}) after line {line}; save it as UTF-8") from error
    except csv.Error as error:
        raise UserError(f"{path}:{line + 1}: {error}{_hint(quoted) if quoted else ''}") from error


def _places(path: Path, names: list[str], columns: Sequence[str]) -> list[int]:
    """Index of each column in the header."""
    for column in columns:
        if names.count(column) != 1:
            found = "has two columns" if column in names else "has no column"
            hint = nearest(column, names)
            if f'"{column}"' in names:
                hint = "its names are in quotation marks: set quoted: true in the dataset's entry"
            elif len(names) == 1 and (others := [mark for mark in ";\t|," if mark in names[0]]):
                hint = f"it is one name, {names[0]!r}: set separator: {others[0]!r} in the dataset's entry"
            raise UserError(f"{path}:1: the header {found} {column!r}; {hint}")
    return [names.index(column) for column in columns]


def _in_quotes(values: list[str]) -> bool:
    return any(len(value) > 1 and value[0] == value[-1] == '"' for value in values)


def _holds_rows(row: list[str], separator: str) -> bool:
    """Whether a value spans lines that look like rows, as after an unclosed quotation mark."""
    for value in row:
        _, *more = value.splitlines()
        if more and all(line.count(separator) == len(row) - 1 for line in more):
            return True
    return False


def _hint(quoted: bool) -> str:
    """Advice for a row that cannot be read."""
    if quoted:
        return "; if quotation marks are plain text in this table, set quoted: false in the dataset's entry"
    return "; if values are in quotation marks, set quoted: true in the dataset's entry"


def _doubt(quoted: bool, rows: int) -> str:
    if quoted:
        return (
            f"a value in quotation marks spans lines that look like rows of the table, which are then lost "
            f"({rows} such); if quotation marks are plain text in this table, set quoted: false in the dataset's entry"
        )
    return (
        f"a value is in quotation marks, which are read as part of it ({rows} such rows); "
        "if they only enclose it, set quoted: true in the dataset's entry"
    )
