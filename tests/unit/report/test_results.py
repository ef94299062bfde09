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
