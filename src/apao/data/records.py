"""Files of one record per line, read to the end although some lines are malformed.

Public dumps hold broken lines. They are counted by reason and skipped; above a stated share the file
is not what it should be, and that is an error.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, TypeVar

from typing_extensions import Buffer, override

from apao.errors import UserError
from apao.files import missing
from apao.progress import progress

MAX_LINE_BYTES = 1 << 20
"""Longer lines are malformed; it bounds what a parser of literals is given."""
MAX_EXPANSION = 50
"""Times its size that a compressed file may become; records become some five times as long."""
SMALL_BYTES = 1 << 22
"""What any compressed file may become, however small it is."""

Record = TypeVar("Record")


class Malformed(Exception):
    """Raised by a parser; its text is the reason that is counted."""


def read_records(
    path: Path, parse: Callable[[str, int], Record | None], max_malformed: float
) -> tuple[list[Record], dict[str, int]]:
    """Parse every line of ``path`` (gzip where its name ends in .gz), leaving out what parses to None.

    ``parse`` gets the line and its number.

    Returns:
        The records in file order, and the number of malformed lines by ``file: reason``.

    Raises:
        UserError: when more than ``max_malformed`` (a share of the lines) are malformed, naming the
            first; or when the file is missing, or its compression is damaged or that of a bomb.
    """
    records: list[Record] = []
    reasons: Counter[str] = Counter()
    first, lines = "", 0
    for number, line in _lines(path):
        lines += 1
        try:
            if line is None:
                raise Malformed(f"longer than {MAX_LINE_BYTES} bytes")
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise Malformed("not UTF-8") from error
            record = parse(text, number)
        except Malformed as error:
            first = first or f"line {number}: {error}"
            reasons[str(error)] += 1
            continue
        if record is not None:
            records.append(record)
    bad = reasons.total()
    if bad > max_malformed * lines:
        listed = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        raise UserError(
            f"{path}: {bad} of {lines} lines are malformed ({listed}), more than the share {max_malformed:g} that "
            f"max_malformed allows; the first is {first}. Download the file again, or raise max_malformed in its entry."
        )
    return records, {f"{path.name}: {reason}": count for reason, count in reasons.items()}


def _lines(path: Path) -> Iterator[tuple[int, bytes | None]]:
    """Number and content of every line that is not blank; None for one that is too long."""
    number = 0
    try:
        with path.open("rb") as compressed, _opened(path, compressed) as file:
            megabytes = path.stat().st_size / 1e6
            with progress(f"reading {path.name} (MB)", megabytes) as advance:
                shown = 0
                while line := file.readline(MAX_LINE_BYTES + 1):
                    number += 1
                    if len(line) > MAX_LINE_BYTES:
                        while line and not line.endswith(b"\n"):
                            line = file.readline(MAX_LINE_BYTES)
                        yield number, None
                    elif line.strip():
                        yield number, line
                    if number % 1000 == 0:
                        at = compressed.tell()
                        advance((at - shown) / 1e6)
                        shown = at
    except FileNotFoundError as error:
        raise missing(path) from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path}: damaged after line {number} ({error}); delete it and download it again.") from error


def _opened(path: Path, compressed: IO[bytes]) -> IO[bytes]:
    return io.BufferedReader(_Bounded(path, compressed), 1 << 16) if path.suffix == ".gz" else compressed


class _Bounded(io.RawIOBase):
    """What a gzip file holds; refuses one of a few megabytes that would keep us reading for hours."""

    def __init__(self, path: Path, compressed: IO[bytes]) -> None:
        self._path, self._file = path, gzip.GzipFile(fileobj=compressed)
        self._left = max(SMALL_BYTES, MAX_EXPANSION * path.stat().st_size)

    @override
    def readable(self) -> bool:
        return True

    @override
    def readinto(self, buffer: Buffer) -> int:
        count = self._file.readinto1(buffer)
        self._left -= count
        if self._left < 0:
            raise UserError(
                f"{self._path}: becomes more than {MAX_EXPANSION} times as long, as no file of records does; "
                "delete it and download it again."
            )
        return count


def json_object(text: str) -> dict[str, Any]:
    """Parser of a line that is one JSON object."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Malformed("not JSON") from error
    if not isinstance(value, dict):
        raise Malformed("not a JSON object")
    return value


def identifier(record: dict[str, Any], key: str) -> str:
    """The non-empty string at ``key``."""
    value = record.get(key)
    if not isinstance(value, str) or not value.strip():
        raise Malformed(f"without {key}")
    if text_of(value) != value:
        raise Malformed(f"{key} is not valid Unicode")
    return value


def text_of(value: object) -> str:
    """A string as files can hold it, empty for anything else; half a surrogate pair becomes a question mark."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else ""
