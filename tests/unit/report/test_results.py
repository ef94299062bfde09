"""Numbers from untrusted JSON."""

import json
from pathlib import Path

import pytest

from apao.errors import UserError
from apao.report.values import number


@pytest.mark.parametrize("text", ["NaN", "-Infinity", "1e999", "9" * 400, "true", '"1"', "null", "[1]", "{}"])
def test_what_is_no_finite_number(text):
    with pytest.raises(UserError, match=r"^metrics\.json: expected a finite number at 'test\.recall'"):
        number(Path("metrics.json"), json.loads(f'{{"test": {{"recall": {text}}}}}'), "test", "recall")


def test_whole_numbers_are_numbers():
    assert number(Path("metrics.json"), [3], 0) == 3.0


@pytest.mark.parametrize(
    ("data", "keys", "where"),
    [
        ({}, ("test", "recall"), "test"),
        ({"test": [1]}, ("test", 1, "recall"), r"test\.1"),
        ({"test": 3}, ("test", "recall"), r"test\.recall"),
    ],
)
def test_what_is_not_there_is_named_as_far_as_it_goes(data, keys, where):
    with pytest.raises(UserError, match=f"expected an entry with this name at '{where}'"):
        number(Path("metrics.json"), data, *keys)
