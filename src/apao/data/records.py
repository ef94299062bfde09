"""Reading files of one record per line that contain some malformed lines.

Public dumps have broken lines. They are skipped and counted by reason; more than a given share is an error.
"""

from __future__ import annotations

import ast
import gzip
import html
import io
import json
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, TypeVar

from typing_extensions import Buffer, override

from apao.data.times import LOCAL, Time, parse_time
from apao.errors import UserError
from apao.files import missing
from apao.progress import progress

MAX_LINE_BYTES = 1 << 20
"""Longer lines are malformed; bounds the input of the literal parser."""
MAX_EXPANSION = 50
"""Maximum ratio of decompressed to compressed size; records have a ratio of about five."""
SMALL_BYTES = 1 << 22
"""Decompressed size that is always accepted, whatever the ratio."""

_LONG_ENTITY = re.compile(r"&#[xX]?[0-9a-fA-F]{100,};?")
_TAG = re.compile(r"</?[A-Za-z!][^<>]*>")

Record = TypeVar("Record")


class Malformed(Exception):
    """Raised by a parser for a malformed line; lines are counted by its message."""


def read_records(
    path: Path, parse: Callable[[str, int], Record | None], max_malformed: float
) -> tuple[list[Record], dict[str, int]]:
    """Parse every line of ``path`` (gzip if its name ends in .gz), omitting lines that parse to None.

    Args:
        path: the file.
        parse: function of the line and its number; raises ``Malformed``.
        max_malformed: largest accepted share of malformed lines.

    Returns:
        The records in file order, and the number of malformed lines by ``file: reason``.

    Raises:
        UserError: when more lines than ``max_malformed`` are malformed, naming the first; or when the file is
            missing, damaged, or expands far more than records do.
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
    """Number and content of every non-blank line; None for one that is too long."""
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
    """Decompressed content of a gzip file, with a limit on its size: a small file could expand for hours."""

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
                f"{self._path}: decompresses to more than {MAX_EXPANSION} times its size, which no file of records "
                "does; delete it and download it again."
            )
        return count


def json_object(text: str) -> dict[str, Any]:
    """Parse a line that is one JSON object; raises ``Malformed``."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Malformed("not JSON") from error
    if not isinstance(value, dict):
        raise Malformed("not a JSON object")
    return value


def identifier(record: dict[str, Any], key: str) -> str:
    """The non-empty string at ``key``; raises ``Malformed``."""
    value = record.get(key)
    if not isinstance(value, str) or not value.strip():
        raise Malformed(f"without {key}")
    if text_of(value) != value:
        raise Malformed(f"{key} is not valid Unicode")
    return value


def text_of(value: object) -> str:
    """``value`` as a string that can be encoded, with ``?`` for a lone surrogate; empty if it is no string."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else ""


def literal_object(line: str) -> dict[str, Any]:
    """Parse a line of JSON or the literal of a Python dictionary. No code in it is executed."""
    try:
        return json_object(line)
    except Malformed:
        pass
    try:
        value = ast.literal_eval(line)
    except (ValueError, TypeError, OverflowError, SyntaxError, MemoryError, RecursionError) as error:
        # The parser raises MemoryError for excessive nesting, OverflowError for a sum like 10...0+1j.
        raise Malformed("neither JSON nor a Python literal") from error
    if not isinstance(value, dict):
        raise Malformed("not a dictionary")
    return value


def clean_text(text: str) -> str:
    """``text`` without HTML entities, tags and line breaks, single-spaced."""
    # No character has this many digits; unescape raises ValueError for a few thousand.
    text = _LONG_ENTITY.sub(" ", text)
    return " ".join(_TAG.sub(" ", html.unescape(text)).split())


def date_of(record: dict[str, Any], example: str) -> Time:
    """The ``date``, without a time zone; raises ``Malformed``, whose message has the ``example``."""
    value = record.get("date")
    try:
        time = parse_time(value) if isinstance(value, str) else None
    except (ValueError, OverflowError):
        time = None
    if time is None or time.kind != LOCAL:
        raise Malformed(f"without a date like {example}")
    return time
