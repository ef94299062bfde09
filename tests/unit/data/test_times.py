"""Times against exact fractions: the order that a file states, and times that cannot be ordered together."""

import re
from datetime import UTC, datetime, timedelta, timezone
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apao.data.times import BANDS, LOCAL, NUMBER, ZONED, Clock, parse_time
from apao.errors import UserError

BASE = 1_546_300_800  # 2019-01-01T00:00:00Z


def clock(*texts):
    """A clock with one row per time, the first on line 2."""
    found = Clock(Path("t.csv"))
    for line, text in enumerate(texts, start=2):
        found.add(text, line)
    return found


def integers(*texts):
    values, decimals = clock(*texts).integers()
    assert str(values.dtype) == "int64"
    return values.tolist(), decimals


@pytest.mark.parametrize(
    ("text", "kind", "exact"),
    [
        ("1546300800", NUMBER, Fraction(BASE)),
        (" -5 ", NUMBER, Fraction(-5)),
        ("881250949.0", NUMBER, Fraction(881250949)),
        ("1546300800.55", NUMBER, BASE + Fraction(55, 100)),
        (".5", NUMBER, Fraction(1, 2)),
        ("1.54630080E+09", NUMBER, Fraction(BASE)),
        ("1.546300800550e9", NUMBER, BASE + Fraction(55, 100)),
        ("1546300800100000001", NUMBER, Fraction(1546300800100000001)),
        ("1546300800.123456789", NUMBER, BASE + Fraction(123456789, 10**9)),
        ("2019-01-01", LOCAL, Fraction(BASE)),
        ("2019-01-01 00:00:00.25", LOCAL, BASE + Fraction(1, 4)),
        ("2019-01-01T00:00:00,25", LOCAL, BASE + Fraction(1, 4)),
        ("1969-12-31 23:59:59.5", LOCAL, Fraction(-1, 2)),
        ("2019-01-01T01:00:00.123456789+01:00", ZONED, BASE + Fraction(123456789, 10**9)),
        ("20190101T000000.5Z", ZONED, BASE + Fraction(1, 2)),
        ("2019-01-01 00:00:00 UTC", ZONED, Fraction(BASE)),
        ("2018-12-31 22:30:00 -0130", ZONED, Fraction(BASE)),
        ("2019-01-01Z", ZONED, Fraction(BASE)),
        ("2019-01-01+05:00", ZONED, Fraction(BASE - 5 * 3600)),
        ("20190101 -0500", ZONED, Fraction(BASE + 5 * 3600)),
    ],
)
def test_every_digit_counts(text, kind, exact):
    time = parse_time(text)
    assert (time.kind, Fraction(time.value, 10**time.decimals)) == (kind, exact)


@pytest.mark.parametrize(
    "text",
    ["", ".", "soon", "nan", "inf", "1,5", "1_000", "\u0663", "+", "e5", "1e99", "1e-31", "9" * 19, "9" * 5000,
     "2019-02-31", "2019-01-31 12:30.5", "2019-01-01T00:00:00+00:00:00.5", "31/01/2019", "12:00",
     "2019-01 -31"],
)  # fmt: skip
def test_what_is_no_time(text):
    with pytest.raises(UserError, match=r"t\.csv:2: expected a timestamp, .*2019-01-31.*found .*; convert the column"):
        clock(text)


exact_times = st.lists(
    st.tuples(st.integers(BASE, BASE + 3), st.text("0123456789", max_size=12)), min_size=1, max_size=12
)


@given(exact_times)
def test_numbers_keep_order_and_distances(times):
    texts = [f"{seconds}.{digits}" if digits else str(seconds) for seconds, digits in times]
    exact = [seconds + Fraction(int(digits or 0), 10 ** len(digits)) for seconds, digits in times]
    values, decimals = integers(*texts)
    if decimals is None:  # finer than 64 bits: ranks
        ranked = sorted(set(exact))
        assert values == [ranked.index(time) for time in exact]
    else:
        assert [Fraction(value, 10**decimals) for value in values] == exact
        assert decimals == max(len(digits.rstrip("0")) for _, digits in times)


@given(st.lists(st.tuples(st.integers(-(10**9), 4 * 10**9), st.integers(0, 10**9 - 1), st.integers(-720, 720))))
def test_dates_keep_order_and_distances(times):
    """Times with nanoseconds, three digits more than Python's dates have, and any offset."""
    texts = [
        datetime.fromtimestamp(seconds, timezone(timedelta(minutes=offset))).isoformat().replace("+", f".{ns:09d}+")
        for seconds, ns, offset in times
        if offset >= 0
    ]
    exact = [seconds + Fraction(ns, 10**9) for seconds, ns, offset in times if offset >= 0]
    values, decimals = integers(*texts)
    assert [Fraction(value, 10**decimals) for value in values] == exact


def test_nanoseconds_of_19_digits_stay_apart():
    values, decimals = integers("1546300800000000001", "1546300800000000000", "1546300800000000002")
    assert (values, decimals) == ([1546300800000000001, 1546300800000000000, 1546300800000000002], 0)
    assert float(values[0]) == float(values[1])  # as floats they would tie


def test_whole_seconds_stay_what_they_were():
    assert integers("30", "20.0", "-5") == ([30, 20, -5], 0)
    assert integers("2020-01-02", "2020-01-02 00:00:01")[0] == [1577923200, 1577923201]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["5", "6", "2019-01-31"], r"t\.csv:4: the time '2019-01-31' is a date .*, but line 2 has '5', a number"),
        (["2019-01-31", "2019-01-31T00:00Z"], r"t\.csv:3: .*with a time zone, but line 2 has '2019-01-31', a date w"),
        (["2019-01-31T12:00:00.5+01:00", "2019-01-31 12:00"], r"t\.csv:3: .*without a time zone, but line 2"),
        (
            [f"{BASE}", f"{BASE + 5}", f"{BASE}123"],
            r"t\.csv:4: .*milliseconds since 1970, but line 2 .*1546300800, one o",
        ),
        ([f"{BASE}000", f"{BASE}.5"], r"t\.csv:2: .*milliseconds since 1970, but line 3 has 1546300800\.5, .*seconds"),
        ([f"{BASE}000000000", f"{BASE}000000"], r"nanoseconds since 1970, but line 3 .*microseconds"),
        ([f"{BASE}", f"{BASE}000000000"], r"nanoseconds since 1970, but line 2 .* seconds"),
        (["20190131", f"{BASE}"], r"seconds since 1970, but line 2 has 20190131, one of dates like 20190131"),
        (["20190131", "20190131120000"], r"dates like 20190131120000, but line 2 has 20190131"),
        (
            ["0", f"{BASE}", f"{BASE}000", f"{BASE + 1}", f"{BASE}001", "253402300799"],
            r"milliseconds since 1970, but line 3",
        ),
    ],
)
def test_what_is_no_one_clock_names_two_lines(texts, message):
    with pytest.raises(UserError, match=message):
        clock(*texts).integers()


@pytest.mark.parametrize(
    "numbers",
    [
        range(50),
        range(0, 3_000_000_000, 10_000_000),  # a counter that passes through dates like 20190131 and seconds
        range(820_454_400, 4_000_000_000, 10**7),  # seconds, 1996 to 2096
        range(0, 40 * 365 * 86_400_000, 10**9),  # milliseconds since the log began, for forty years
        range(0, 3 * 365 * 86_400_000_000, 10**11),  # microseconds, for three
        [int(1.05**i) for i in range(880)],  # on any scale
        [1_546_300_800_000 + i for i in range(5)],
    ],
)
def test_one_clock_is_taken_whatever_it_spans(numbers):
    texts = [str(number) for number in numbers]
    assert integers(*texts) == (list(numbers), 0)


def test_bands_are_in_order():
    edges = [edge for band in BANDS.values() for edge in band]
    assert edges == sorted(set(edges))
    for name, factor in (("seconds", 1), ("milliseconds", 10**3), ("microseconds", 10**6), ("nanoseconds", 10**9)):
        low, high = BANDS[f"{name} since 1970"]
        assert datetime.fromtimestamp(low // factor, UTC).isoformat() == "1980-01-01T00:00:00+00:00"
        assert datetime.fromtimestamp(high // factor, UTC).isoformat() == "2101-01-01T00:00:00+00:00"


def test_what_the_times_are_is_said():
    said = {
        "numbers": ["1", "2"],
        "seconds since 1970": [f"{BASE}", f"{BASE}.5"],
        "nanoseconds since 1970": [f"{BASE}123456789"],
        "dates like 20190131": ["20190131"],
        "dates without a time zone, read as UTC": ["2019-01-31"],
        "dates with a time zone": ["2019-01-31T00:00Z"],
    }
    for description, texts in said.items():
        assert clock(*texts).description == description


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["1.54630080E+09"], r"t\.csv:2: the time 1\.54630080E\+09 is written without its last digits, so .* 10 apart"),
        ([f"{BASE}", "1.5E+09"], r"t\.csv:3: .*less than 100000000 apart are equal; export"),
        (["2019-01-31 12:00:00", "2019-01-31"], r"t\.csv:3: 1 of 2 times are dates without a time of day"),
        ([f"{BASE + i}" for i in range(9)] + ["0", "-1"], r"t\.csv:11: 2 of 11 times, such as 0, are not between 1980"),
        ([f"{BASE + i}" for i in range(200)] + ["7"], r"t\.csv:202: 1 of 201 times, such as 7"),
    ],
)
def test_what_is_odd_is_a_warning(texts, message):
    found = clock(*texts)
    found.integers()
    (warning,) = found.warnings
    assert re.search(message, warning)


@pytest.mark.parametrize(
    "texts",
    [
        [f"{i * 10_000_000}" for i in range(400)],
        [f"{BASE}", "1.546300800550000000e+09"],
        ["2019-01-31", "2019-02-01"],
        ["0", "1", "2"],
        ["-3"],
    ],
)
def test_what_is_not_odd_is_none(texts):
    found = clock(*texts)
    found.integers()
    assert found.warnings == []
