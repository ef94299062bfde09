"""Parsing the times of a file into integers that preserve their order exactly.

No float is involved: a number is read digit by digit, a date as whole seconds and the digits of its fraction. All
times of a file are scaled to the smallest decimal unit that any of them needs.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from apao.errors import UserError

NUMBER, LOCAL, ZONED = "a number", "a date without a time zone", "a date with a time zone"
EXPECTED = "a number such as 1546300800 or 1546300800.25, or a date such as 2019-01-31 or 2019-01-31T12:00:00.250+01:00"

MAX_DECIMALS = 30
_PLAIN = re.compile(r"-?[0-9]{1,18}")
_NUMBER = re.compile(r"([+-]?)([0-9]{0,40})(?:\.([0-9]{0,40}))?(?:[eE]([+-]?[0-9]{1,2}))?")
_DATE = re.compile(r"(.+?)(?:[.,]([0-9]{1,30}))?( ?(?:Z|z|UTC|GMT|[+-][0-9:]{2,8}))?", re.DOTALL)
_DAY_IN_ZONE = re.compile(
    r"([0-9]{4}(?:-?[0-9]{2}-?[0-9]{2}|-?W[0-9]{2}(?:-?[1-7])?)) ?(Z|z|UTC|GMT|[+-][0-9]{2}(?::?[0-9]{2})?)"
)
_WITH_TIME = re.compile(r".+[T ][0-9]{2}.*")
_WITH_SECONDS = re.compile(r".+[T ][0-9]{2}:?[0-9]{2}:?[0-9]{2}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_FIRST, _LAST = 315_532_800, 4_133_980_800  # 1980-01-01 and 2101-01-01
BANDS = {
    "dates like 20190131": (19_800_101, 21_010_101),
    "seconds since 1970": (_FIRST, _LAST),
    "dates like 201901311200": (198_001_010_000, 210_101_010_000),
    "milliseconds since 1970": (_FIRST * 10**3, _LAST * 10**3),
    "dates like 20190131120000": (19_800_101_000_000, 21_010_101_000_000),
    "microseconds since 1970": (_FIRST * 10**6, _LAST * 10**6),
    "nanoseconds since 1970": (_FIRST * 10**9, _LAST * 10**9),
}
"""Numbers of the times between 1980 and 2100 in each unit: half-open intervals, ascending and disjoint."""
_NAMES, _EDGES = list(BANDS), [edge for band in BANDS.values() for edge in band]


class Time(NamedTuple):
    """One time, ``value`` / 10**``decimals``; dates are in seconds since 1970."""

    kind: str
    value: int
    decimals: int
    step: int = 1
    """Resolution: above 1 for a number in scientific notation whose last digit has this weight."""


def parse_time(text: str) -> Time:
    """Read a number (whole, decimal or scientific) or an ISO 8601 date, exactly.

    Raises:
        ValueError: when it is neither, or too large for a time.
    """
    text = text.strip()
    if _PLAIN.fullmatch(text):
        return Time(NUMBER, int(text), 0)
    match = _NUMBER.fullmatch(text)
    if match is not None and (match[2] or match[3]):
        return _number(*match.groups(default=""))
    return _date(text)


def _number(sign: str, whole: str, fraction: str, exponent: str) -> Time:
    power = int(exponent or 0) - len(fraction)
    digits = whole + fraction
    # Trailing zeros of a fraction need no smaller unit.
    zeros = min(len(digits) - len(digits.rstrip("0")), max(-power, 0))
    digits, power = digits[: len(digits) - zeros], power + zeros
    value, decimals = int(sign + (digits or "0")) * 10 ** max(power, 0), max(-power, 0)
    if decimals > MAX_DECIMALS or abs(value) >= 10**decimals << 63:
        raise ValueError("too large or too fine")
    return Time(NUMBER, value, decimals, 10 ** max(power, 0))


def _date(text: str) -> Time:
    # By itself `fromisoformat` reads the zone of a date without a time as the time.
    text = _DAY_IN_ZONE.sub(r"\1T00:00\2", text) if _DAY_IN_ZONE.fullmatch(text) else text
    match = _DATE.fullmatch(text)
    if match is None:
        raise ValueError("no date")
    head, fraction, zone = match.groups(default="")
    if fraction and not _WITH_SECONDS.fullmatch(head):
        raise ValueError("a fraction of something else than seconds")
    if zone.startswith(" ") and not _WITH_TIME.fullmatch(head):
        raise ValueError("a blank within a date")
    zone = zone.strip()
    moment = datetime.fromisoformat(head + ("+00:00" if zone in ("Z", "z", "UTC", "GMT") else zone))
    kind = LOCAL if moment.tzinfo is None else ZONED
    since = moment.replace(tzinfo=moment.tzinfo or UTC) - _EPOCH
    fraction = fraction.rstrip("0")
    seconds = since.days * 86_400 + since.seconds
    return Time(kind, seconds * 10 ** len(fraction) + int(fraction or 0), len(fraction))


class Clock:
    """The times of one file, collected row by row.

    Times that cannot be ordered together are refused: numbers mixed with dates, dates with a time zone mixed with
    dates without, and numbers in different units. Units are told apart by size, for times between 1980 and 2100:
    seconds since 1970 are near 10^9, milliseconds near 10^12, microseconds near 10^15, nanoseconds near 10^18
    (``BANDS``, which also has dates written as one number). A file has two units if it has numbers in two bands and
    fewer numbers in the gap between them than in either band. Counters and clocks that start at 0 may pass through
    several bands, but they fill the much wider gaps as well, and are accepted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.decimals = 0
        """The integers are the times multiplied by 10**decimals."""
        self.warnings: list[str] = []
        self._values: list[int] = []
        self._first: dict[str, tuple[int, str]] = {}
        self._places = Counter[int]()
        self._place_first: dict[int, tuple[int, str]] = {}
        self._coarse = (1, 0, "")
        self._days, self._first_day = 0, 0
        self._early = 0

    def add(self, text: str, line: int) -> None:
        """Append the time of the row at ``line``.

        Raises:
            UserError: when it is not a time, or of another kind than an earlier one; names the lines.
        """
        try:
            time = parse_time(text)
        except (ValueError, OverflowError) as error:
            raise UserError(
                f"{self.path}:{line}: expected a timestamp, that is {EXPECTED}; found {text!r}; convert the column, or "
                "remove the row if it has no time"
            ) from error
        self.append(time, text, line)

    def append(self, time: Time, text: str, line: int) -> None:
        """Append a parsed time.

        Raises:
            UserError: when it is of another kind than an earlier one; names both lines.
        """
        kind, value, decimals, step = time
        if kind not in self._first:
            self._first[kind] = (line, text)
            self._refuse_two_kinds()
        if kind == NUMBER:
            place = bisect_right(_EDGES, value // 10**decimals if decimals else value)
            self._places[place] += 1
            if place not in self._place_first:
                self._place_first[place] = (line, text)
            self._early += value <= 0
            if step > self._coarse[0]:
                self._coarse = (step, line, text)
        elif len(text.strip()) <= len("2019-01-31"):
            self._days += 1
            self._first_day = self._first_day or line
        if decimals > self.decimals:
            factor = 10 ** (decimals - self.decimals)
            self._values = [each * factor for each in self._values]
            self.decimals = decimals
        self._values.append(value * 10 ** (self.decimals - decimals))

    def _refuse_two_kinds(self) -> None:
        if len(self._first) > 1:
            (kind, (line, text)), (other, (at, found)) = self._first.items()
            raise UserError(
                f"{self.path}:{at}: the time {found!r} is {other}, but line {line} has {text!r}, {kind}; "
                "these cannot be ordered together: write all times of the column in the same form"
            )

    def integers(self) -> tuple[NDArray[np.int64], int | None]:
        """The times as integers (N,), and their decimals: value = time * 10**decimals.

        If the times do not fit into 64 bits in their common unit, the integers are ranks and the decimals None.

        Raises:
            UserError: when the file mixes units; names two lines.
        """
        self._refuse_two_units()
        self._warn()
        # Python's integers are exact; the table holds int64.
        if all(-(1 << 63) <= value < 1 << 63 for value in self._values):
            return np.array(self._values, dtype=np.int64), self.decimals
        rank = {value: i for i, value in enumerate(sorted(set(self._values)))}
        return np.array([rank[value] for value in self._values], dtype=np.int64), None

    def _refuse_two_units(self) -> None:
        bands = sorted(place for place in self._places if place % 2)
        for low, high in pairwise(bands):
            between = sum(self._places[place] for place in range(low + 1, high))
            if between < min(self._places[low], self._places[high]):
                (line, text), (at, found) = self._place_first[low], self._place_first[high]
                raise UserError(
                    f"{self.path}:{at}: the time {found} can only be one of {_NAMES[high // 2]}, but line {line} has "
                    f"{text}, one of {_NAMES[low // 2]}; these cannot be ordered together: use one unit"
                )

    def _warn(self) -> None:
        """Add warnings about rounded, incomplete and implausible times."""
        step, line, text = self._coarse
        if step > 1:
            self.warnings.append(
                f"{self.path}:{line}: the time {text} is written without its last digits, so times less than "
                f"{step} apart are equal; export the column with all its digits"
            )
        if 0 < self._days < len(self._values):
            self.warnings.append(
                f"{self.path}:{self._first_day}: {self._days} of {len(self._values)} times are dates without a time of "
                "day, read as midnight: before all others of their day"
            )
        band, inside = self._main_band()
        outside = len(self._values) - inside
        # A counter that passes through a band has many numbers below it, but almost none that are not positive.
        if band is not None and outside and (outside <= 0.01 * inside or self._early > outside / 2):
            line, text = next(first for place, first in self._place_first.items() if place != band)
            self.warnings.append(
                f"{self.path}:{line}: {outside} of {len(self._values)} times, such as {text}, are not between 1980 "
                f"and 2100, unlike the others, read as {_NAMES[band // 2]}; if they stand for missing times, remove "
                "these rows"
            )

    def _main_band(self) -> tuple[int | None, int]:
        """The band with more than half of the numbers, if any, and their number."""
        place, inside = max(self._places.items(), key=lambda pair: pair[1], default=(0, 0))
        return (place, inside) if place % 2 and inside > len(self._values) / 2 else (None, 0)

    @property
    def description(self) -> str:
        """Kind and unit of the file's times."""
        if NUMBER not in self._first:
            return "dates without a time zone, read as UTC" if LOCAL in self._first else "dates with a time zone"
        band, _ = self._main_band()
        return "numbers" if band is None else _NAMES[band // 2]


def units(decimals: int | None) -> str:
    """Resolution of the integers of a ``Clock``, in words."""
    if decimals is None:
        return "kept as ranks, as they are too fine for 64 bits"
    return f"kept to {decimals} decimals" if decimals else ""
