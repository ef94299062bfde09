"""Times as files write them, as integers in exactly the order that the file states.

No float is involved: a number is taken digit by digit, a date as whole seconds and the digits of its fraction.
All times of a file are brought to the smallest decimal unit that one of them needs.
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
"""Numbers that are times between 1980 and 2100, by how they count: half-open intervals, ascending and disjoint."""
_NAMES, _EDGES = list(BANDS), [edge for band in BANDS.values() for edge in band]


class Time(NamedTuple):
    """One time: ``value`` / 10**``decimals``, for dates in seconds since 1970."""

    kind: str
    value: int
    decimals: int
    step: int = 1
    """Above 1 for a number in scientific notation whose last digit stands for that much."""


def parse_time(text: str) -> Time:
    """Read a number (whole, decimal or scientific) or an ISO 8601 date, exactly.

    Raises:
        ValueError: when it is neither, or too large for any clock.
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
    # Zeros at the end of a fraction ask for no smaller unit.
    zeros = min(len(digits) - len(digits.rstrip("0")), max(-power, 0))
    digits, power = digits[: len(digits) - zeros], power + zeros
    value, decimals = int(sign + (digits or "0")) * 10 ** max(power, 0), max(-power, 0)
    if decimals > MAX_DECIMALS or abs(value) >= 10**decimals << 63:
        raise ValueError("too large or too fine")
    return Time(NUMBER, value, decimals, 10 ** max(power, 0))


def _date(text: str) -> Time:
    match = _DATE.fullmatch(text)
    if match is None:
        raise ValueError("no date")
    head, fraction, zone = match.groups(default="")
    if fraction and not _WITH_SECONDS.fullmatch(head):
        raise ValueError("a fraction of something else than seconds")
    zone = zone.strip()
    moment = datetime.fromisoformat(head + ("+00:00" if zone in ("Z", "z", "UTC", "GMT") else zone))
    kind = LOCAL if moment.tzinfo is None else ZONED
    since = moment.replace(tzinfo=moment.tzinfo or UTC) - _EPOCH
    fraction = fraction.rstrip("0")
    seconds = since.days * 86_400 + since.seconds
    return Time(kind, seconds * 10 ** len(fraction) + int(fraction or 0), len(fraction))


class Clock:
    """The times of one file, collected row by row.

    What cannot be one clock is refused: numbers beside dates, dates with a time zone beside dates without one, and
    numbers that count in different units. The last is judged by size, for times between 1980 and 2100: seconds
    since 1970 are near 10^9, milliseconds near 10^12, microseconds near 10^15, nanoseconds near 10^18 (``BANDS``,
    which also has dates written as one number). Two of these bands in one file, with fewer numbers in the
    gap between them than in either, are two units. Counters and clocks that start at 0 may pass through
    several bands, but fill the far wider gaps on their way, and are taken as they are.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.decimals = 0
        """Integers are times 10**decimals."""
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
            UserError: naming the line, for what is no time, and both lines for another kind than before.
        """
        try:
            time = parse_time(text)
        except (ValueError, OverflowError) as error:
            raise UserError(f"{self.path}:{line}: expected a timestamp, that is {EXPECTED}; found {text!r}") from error
        self.append(time, text, line)

    def append(self, time: Time, text: str, line: int) -> None:
        """Append a time that has been read already.

        Raises:
            UserError: naming two lines, when it is of another kind than the ones before.
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
                "these cannot be put in one order: write all times of the column alike"
            )

    def integers(self) -> tuple[NDArray[np.int64], int | None]:
        """The times as integers, and the decimals they were multiplied by: value = time * 10**decimals.

        Where the common unit of all times is too small for 64 bits, the integers are the times' ranks and the
        decimals None.

        Raises:
            UserError: naming two lines, when the file mixes units.
        """
        self._refuse_two_units()
        self._remark()
        # Python's integers are exact; int64 is what the table holds.
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
                    f"{text}, one of {_NAMES[low // 2]}; these cannot be put in one order: bring the column to one unit"
                )

    def _remark(self) -> None:
        """Warn of times that the file states in part only."""
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
        # A counter that passes through a band has many numbers before it, but next to none that are not positive.
        if band is not None and outside and (outside <= 0.01 * inside or self._early > outside / 2):
            line, text = next(first for place, first in self._place_first.items() if place != band)
            self.warnings.append(
                f"{self.path}:{line}: {outside} of {len(self._values)} times, such as {text}, are not between 1980 "
                f"and 2100, where the others are as {_NAMES[band // 2]}; if they stand for missing times, remove "
                "these rows"
            )

    def _main_band(self) -> tuple[int | None, int]:
        """Where more than half of the numbers lie, and how many do."""
        place, inside = max(self._places.items(), key=lambda pair: pair[1], default=(0, 0))
        return (place, inside) if place % 2 and inside > len(self._values) / 2 else (None, 0)

    @property
    def description(self) -> str:
        """What the file's times are."""
        if NUMBER not in self._first:
            return "dates without a time zone, read as UTC" if LOCAL in self._first else "dates with a time zone"
        band, _ = self._main_band()
        return "numbers" if band is None else _NAMES[band // 2]


def units(decimals: int | None) -> str:
    """How far the integers of a ``Clock`` resolve its times."""
    if decimals is None:
        return "kept as ranks, being finer than 64 bits hold"
    return f"kept to {decimals} decimals" if decimals else ""
