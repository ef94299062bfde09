"""Ids of tables: blanks removed, and no id under two spellings."""

from pathlib import Path

import pytest

from apao.data.ids import Ids
from apao.errors import UserError


def ids(file, *texts):
    found = Ids("item", Path(file))
    return found, [found.read(text, line) for line, text in enumerate(texts, start=2)]


def test_blanks_around_ids_are_removed_and_counted():
    found, read = ids("t.csv", "a", " a", "a\t", "\u00a0b")
    assert read == ["a", "a", "a", "b"]
    assert found.notes == ["blanks around item ids removed (3 such, first t.csv:3)"]
    assert ids("t.csv", "a b", "007")[0].notes == []


@pytest.mark.parametrize("text", ["", " ", "\t\n", "\u00a0"])
def test_an_empty_id_is_named(text):
    with pytest.raises(UserError, match=r"t\.csv:3: the item id is empty"):
        ids("t.csv", "a", text)


def test_ids_that_went_through_floats_are_refused_beside_the_others():
    whole, _ = ids("items.csv", "101", "102", "x", "7.0")
    decimal, _ = ids("inter.csv", "9", "102.0", "101.0", "x")
    whole.check_spelling()
    decimal.check_spelling()
    with pytest.raises(UserError) as raised:
        decimal.check_spelling(whole)
    said = str(raised.value)
    for words in ("inter.csv:3", "'102.0' is '102' in items.csv:3", "another of 2 is '101.0', there '101'", "Int64"):
        assert words in said
    with pytest.raises(UserError, match=r"inter\.csv:4: the item id '101\.0' is '101' in inter\.csv:2"):
        ids("inter.csv", "101", "5", "101.0")[0].check_spelling()


def test_ids_that_only_look_like_decimals_are_left_alone():
    """Versions and dates are not spellings of other ids."""
    for given in (["1.0", "2.0"], ["1.0", "1.5"], ["1.0", "01"]):
        found, _ = ids("t.csv", *given)
        found.check_spelling(ids("i.csv", *given)[0])


def test_ids_that_are_likely_none_are_a_warning():
    found, _ = ids("t.csv", "a", "nan", "1.23457E+12", "12e45", "2.5E+11", "1e+16", "1e16")
    missing, cut = found.warnings
    assert missing.startswith("t.csv:3: the item id 'nan' often stands for a missing value")
    assert cut.startswith("t.csv:4: 3 item ids like '1.23457E+12' are in scientific notation")
