"""Files of codes: every form is read like a hand-written one; every error names its place."""

import json
from pathlib import Path
from string import ascii_lowercase

import numpy as np
import pandas as pd
import pytest

from apao.codes.tokenizers.file import given_codes
from apao.errors import UserError
from apao.study.paths import DatasetPaths

PATHS = DatasetPaths("toy")
ITEMS = ["10", "9", "x y"]
CODES = [[3, 0], [1, 12], [3, 1]]


@pytest.fixture(autouse=True)
def _catalogue(project):
    PATHS.folder.mkdir(parents=True)
    pd.DataFrame({"item": range(3), "raw_id": ITEMS, "text": ""}).to_parquet(PATHS.items)


def read(name, item="item"):
    raw_ids = pd.read_parquet(PATHS.items)["raw_id"].tolist()
    return given_codes(Path(name), raw_ids, PATHS.items, item)


def from_json(table):
    Path("index.json").write_text(table if isinstance(table, str) else json.dumps(table))
    return read("index.json")


def from_parquet(table, item="item"):
    pd.DataFrame(table).to_parquet("codes.parquet", index=False)
    return read("codes.parquet", item)


def spelled(code):
    return [f"<{'ab'[level]}_{value}>" for level, value in enumerate(code)]


def test_an_index_json():
    """The order of the file differs from that of the items."""
    table = {"x y": spelled(CODES[2]), "more": ["<a_0>", "<b_0>"], "9": spelled(CODES[1]), "10": spelled(CODES[0])}
    found = from_json(table)
    assert found.codes.tolist() == CODES and found.facts["file"]["example_of_no_item"] == "more"
    assert (found.codebooks, found.relative_errors) == ((), None)


@pytest.mark.parametrize("names", [("level_1", "level_2"), ("sid_0", "sid_1"), ("c9", "c10"), ("0", "1")])
@pytest.mark.parametrize("dtype", ["int64", "uint8", "int32"])
def test_a_parquet_table(names, dtype):
    """Levels follow from their numbers, not from the order of the columns."""
    first, second = names
    rows = np.array(CODES, dtype=dtype)
    found = from_parquet({second: rows[::-1, 1], "item": ITEMS[::-1], first: rows[::-1, 0]})
    assert found.codes.tolist() == CODES and found.codes.dtype == np.int64
    assert found.facts["file"]["rows_of_no_item"] == 0 and found.notes == ("codes.parquet: 3 rows, one per item",)


def test_whole_numbers_are_ids_as_they_are_spelled():
    table = pd.DataFrame({"item": [9, 10], "level_1": [1, 3], "level_2": [12, 0]})
    pd.DataFrame({"item": [0, 1], "raw_id": ["10", "9"], "text": ""}).to_parquet(PATHS.items)
    assert from_parquet(table).codes.tolist() == [[3, 0], [1, 12]]
    assert from_parquet(table.astype({"item": str}).astype({"item": "category"})).codes.tolist() == [[3, 0], [1, 12]]


GOOD = {name: spelled(code) for name, code in zip(ITEMS, CODES, strict=True)}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({**GOOD, "9": ["<a_1>"]}, r"item '9' has 1 tokens, item '10' has 2"),
        ({**GOOD, "9": ["<b_1>", "<a_2>"]}, r"item '9': expected a token like <a_0> at level 1, found '<b_1>'"),
        ({**GOOD, "9": ["<a_01>", "<b_2>"]}, r"item '9': expected a token like <a_0>"),
        ({**GOOD, "9": "<a_1>"}, r"item '9': expected tokens like .*<a_1>.*, found '<a_1>'$"),
        ({**GOOD, "9": [1, 2]}, r"item '9': expected tokens like .*<a_1>.*, found \[1, 2\]$"),
        (
            {"9": [f"<{letter}_1>" for letter in ascii_lowercase] + ["<a_1>"]},
            r"item '9' has 27 tokens; expected 1 to 26",
        ),
        ({"9": GOOD["9"]}, r"has no entry for 2 of the 3 items, such as '10'; ids in the file look like '9'"),
        ({}, "contains no codes"),
        ({"10": [], "9": [], "x y": []}, "contains no codes"),
        ([GOOD], "expected a JSON object of item ids and codes, found a list"),
        ("{", "not valid JSON"),
        ('{"9": ["<a_1>"], "10": ["<a_1>"], "9": ["<a_2>"]}', "the key '9' is given twice"),
    ],
)
def test_mistakes_in_an_index_json(table, message):
    with pytest.raises(UserError, match=rf"^index\.json: {message}"):
        from_json(table)


PARQUET = {"item": ITEMS, "level_1": [3, 1, 3], "level_2": [0, 12, 1]}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({**PARQUET, "level_2": [0, -1, 2]}, r"row 1 \(item '9'\) has -1 in 'level_2'; expected 0 to 9999999"),
        ({**PARQUET, "level_2": [0, 1, 10**7]}, r"row 2 \(item 'x y'\) has 10000000 in 'level_2'"),
        ({**PARQUET, "level_2": [0, None, 2]}, r"the column 'level_2' contains double with 1 empty values"),
        ({**PARQUET, "level_2": ["0", "1", "2"]}, r"the column 'level_2' contains (large_)?string"),
        ({**PARQUET, "item": ["10", "9", "9"]}, r"rows 1 and 2 both have the item id '9'; expected one row"),
        ({**PARQUET, "item": ["10", None, "9"]}, r"row 1 has nothing in the column 'item'; expected item ids"),
        ({**PARQUET, "item": [10.0, 9.0, 8.0]}, r"the column 'item' contains double; expected item ids as strings"),
        ({**PARQUET, "item": ["B10", "B9", "B8"]}, r"has no entry for 3 of the 3 items, such as '10'; .* like 'B10'"),
        ({**PARQUET, "title": ["a", "b", "c"]}, r"expected, besides the item ids, one column per level"),
        ({"item": ITEMS, "level_1": [1, 2, 3], "level_3": [1, 2, 3]}, r".* per level: .* found level_1, level_3"),
        ({"item": ITEMS, "level_1": [1, 2, 3], "code_2": [1, 2, 3]}, r"expected, .* one column per level"),
        ({"item": ITEMS}, r"expected, .* one column per level: .* found none"),
        ({"id": ITEMS, "level_1": [1, 2, 3]}, r"expected one column 'item' of item ids; name it in item; .*known: id"),
        ({"item": pd.Series([], dtype=str), "level_1": pd.Series([], dtype=int)}, "contains no codes"),
    ],
)  # fmt: skip
def test_mistakes_in_a_parquet_table(table, message):
    with pytest.raises(UserError, match=rf"^codes\.parquet: {message}"):
        from_parquet(table)


def test_something_else_is_no_parquet_table():
    Path("codes.parquet").write_bytes(b"PAR1 not quite PAR1")
    with pytest.raises(UserError, match=r"^codes\.parquet: not a parquet table"):
        read("codes.parquet")
