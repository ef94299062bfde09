"""Tables with a header line, read as strings, with the line number of every row."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from apao.artifacts import missing
from apao.errors import UserError, nearest

_WHOLE = re.compile(r"(-?[0-9]{1,18})(?:\.0*)?")


def read_rows(
    path: Path, separator: str, columns: Sequence[str], quoted: bool = True
) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and the values of ``columns`` for every row; blank lines are passed over.

    A typed header (``user_id:token``) is known by the name before the colon.

    Raises:
        UserError: naming file and line, when the file is missing or not UTF-8, a column is missing
            from the header, or a row has another number of values than the header.
    """
    line = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(
                file, delimiter=separator, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE, strict=True
            )
            header = next(reader, [])
            names = [name.partition(":")[0].strip() for name in header]
            for column in columns:
                if names.count(column) != 1:
                    found = "has two columns" if column in names else "has no column"
                    raise UserError(f"{path}:1: the header {found} {column!r}; {nearest(column, names)}")
            wanted = [names.index(column) for column in columns]
            line = reader.line_num
            for row in reader:
                # A quoted value may hold line breaks; the row begins after the last line of the one before.
                first, line = line + 1, reader.line_num
                if len(row) == len(names):
                    yield first, [row[index] for index in wanted]
                elif row:
                    raise UserError(f"{path}:{first}: {len(row)} values, but the header has {len(names)} columns")
    except FileNotFoundError as error:
        raise missing(path) from error
    except IsADirectoryError as error:
        raise UserError(f"{path}: is a folder, expected a table") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 ({error.reason}) after line {line}; save it as UTF-8") from error
    except csv.Error as error:
        raise UserError(f"{path}:{line + 1}: {error}") from error


def parse_timestamp(text: str, where: str) -> int:
    """A whole number of any unit as it is, or an ISO 8601 date or time (UTC unless it says otherwise) in seconds.

    Raises:
        UserError: naming ``where``, when it is neither.
    """
    match = _WHOLE.fullmatch(text.strip())
    if match is not None:
        return int(match[1])
    try:
        time = datetime.fromisoformat(text.strip())
        return int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError) as error:
        raise UserError(
            f"{where}: expected a timestamp, that is a whole number or a date like 2019-01-31 or 2019-01-31 12:00:00, "
            f"found {text!r}"
        ) from error


def parse_id(text: str, what: str, where: str) -> str:
    """An id as it is written.

    Raises:
        UserError: naming ``where``, when it is empty.
    """
    if not text.strip():
        raise UserError(f"{where}: the {what} id is empty")
    return text
