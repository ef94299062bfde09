"""Reading delimited tables with a header line: string values, and the line number of every row."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from apao.errors import UserError, nearest
from apao.files import missing

MAX_CELL = 1 << 24
"""Maximum characters per cell; the csv module's own limit is 131,072."""
SEPARATORS = {".csv": ",", ".tsv": "\t"}
"""Column separators by the end of the file's name."""


def quoted_by_default(separator: str) -> bool:
    """Whether quotation marks enclose values. Most programs write TSV with quotation marks as ordinary characters."""
    return separator != "\t"


def read_rows(
    path: Path,
    separator: str,
    columns: Sequence[str],
    quoted: bool = True,
    warnings: list[str] | None = None,
    remedy: str = "rename the columns",
) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and the values of ``columns`` for every row; blank lines are skipped.

    The type in a header such as ``user_id:token`` may be left out of ``columns``. With ``quoted`` a value in quotation
    marks may contain separators and line breaks; without, a quotation mark is an ordinary character. After the last
    row, a warning is appended to ``warnings`` if the other setting seems to be the right one. ``remedy`` is what to do
    about missing columns.

    Raises:
        UserError: naming file and line, when the file is missing or not UTF-8, a column is missing from the header,
            the number of values in a row differs from the header's, or a value has a blank before its quotation marks.
    """
    line = 0
    csv.field_size_limit(MAX_CELL)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(
                file, delimiter=separator, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE, strict=True
            )
            header = next(reader, [])
            wanted = _places(path, header, columns, quoted, remedy)
            line = reader.line_num
            doubtful, first_doubtful = 0, 0
            for row in reader:
                # A quoted value may contain line breaks: the row starts after the last line of the previous row.
                first, line = line + 1, reader.line_num
                if len(row) == len(header):
                    values = [row[index] for index in wanted]
                    if quoted and any(map(_late_quotes, values)):
                        raise UserError(
                            f"{path}:{first}: a blank before a quotation mark makes the mark part of the value; "
                            "remove the blanks after the separators"
                        )
                    if _holds_rows(row, separator) if quoted and line > first else not quoted and _in_quotes(values):
                        doubtful, first_doubtful = doubtful + 1, first_doubtful or first
                    yield first, values
                elif row:
                    hint = _hint(quoted) if any('"' in value for value in row) else ""
                    raise UserError(
                        f"{path}:{first}: {len(row)} values, but the header has {len(header)} columns{hint}"
                    )
            if doubtful and warnings is not None:
                warnings.append(f"{path}:{first_doubtful}: {_doubt(quoted, doubtful)}")
    except FileNotFoundError as error:
        raise missing(path) from error
    except IsADirectoryError as error:
        raise UserError(f"{path}: is a folder, expected a table") from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}:{undecodable_line(path, 'utf-8')}: not UTF-8 ({error.reason}); save the file as UTF-8"
        ) from error
    except csv.Error as error:
        raise UserError(f"{path}:{line + 1}: {error}{_hint(quoted) if quoted else ''}") from error


def undecodable_line(path: Path, encoding: str) -> int:
    """Number of the first line that is not in ``encoding``; Python decodes whole blocks and does not know it."""
    content = path.read_bytes()
    try:
        content.decode(encoding)
    except UnicodeDecodeError as error:
        content = content[: error.start] + b"?"
    return len(content.splitlines())


def _places(path: Path, header: list[str], columns: Sequence[str], quoted: bool, remedy: str) -> list[int]:
    """Index of each column in the header, by its whole name or by that before a colon."""
    whole = [name.strip() for name in header]
    without_type = [name.partition(":")[0].strip() for name in header]
    named = {column: whole if column in whole else without_type for column in columns}
    if absent := [column for column, names in named.items() if column not in names]:
        raise UserError(f"{path}:1: the header has no {_absent(absent, without_type, quoted, remedy)}")
    for column, names in named.items():
        if (count := names.count(column)) > 1:
            raise UserError(f"{path}:1: the header has {count} columns {column!r}; rename all but one")
    return [names.index(column) for column, names in named.items()]


def _absent(columns: list[str], names: list[str], quoted: bool, remedy: str) -> str:
    """The columns that a header lacks, and what to do."""
    lacks = f"column{'s' if len(columns) > 1 else ''} {', '.join(map(repr, columns))}"
    if any(f'"{column}"' in names for column in columns):
        marks = "its names are in quotation marks"
        return (
            f"{lacks}; {marks} after blanks: remove the blanks" if quoted else f"{lacks}; {marks}: {_OTHERWISE[quoted]}"
        )
    if len(names) == 1 and (others := [mark for mark in ";\t|," if mark in names[0]]):
        return f"{lacks}; it is one name, {names[0]!r}: set separator: {others[0]!r} in the dataset's entry"
    return f"{lacks}; {nearest(' '.join(columns), names)}; {remedy}"


def _late_quotes(value: str) -> bool:
    return value[:1] == " " and _in_quotes([value.strip()])


def _in_quotes(values: list[str]) -> bool:
    return any(len(value) > 1 and value[0] == value[-1] == '"' for value in values)


def _holds_rows(row: list[str], separator: str) -> bool:
    """Whether a value spans lines that look like rows, as after an unclosed quotation mark."""
    for value in row:
        more = value.splitlines()[1:]
        if more and all(line.count(separator) == len(row) - 1 for line in more):
            return True
    return False


def _hint(quoted: bool) -> str:
    """Advice for a row that cannot be read."""
    if quoted:
        return f"; if quotation marks are plain text in this table, {_OTHERWISE[quoted]}"
    return f"; if values are in quotation marks, {_OTHERWISE[quoted]}"


def _doubt(quoted: bool, rows: int) -> str:
    if quoted:
        return (
            f"a value in quotation marks spans lines that look like rows of the table, which are then lost "
            f"({rows} such){_hint(quoted)}"
        )
    return (
        f"a value is in quotation marks, which are read as part of it ({rows} such rows); "
        f"if they only enclose it, {_OTHERWISE[quoted]}"
    )


# The second half is for tables that are no dataset's.
_OTHERWISE = {
    True: "set quoted: false in the dataset's entry, or save the table as TSV",
    False: "set quoted: true in the dataset's entry, or save the table as CSV",
}
