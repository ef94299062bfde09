import json
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from apao.codes.itemcodes import ItemCodes
from apao.codes.vocabulary import SPECIAL_TOKENS, code_string, parse_code_string
from apao.errors import UserError

tables = st.tuples(st.integers(1, 25), st.integers(1, 6)).flatmap(
    lambda shape: arrays(np.int64, shape, elements=st.integers(0, 130))
)


def strings(codes):
    """The release's form of a code table, hand-written."""
    return {str(i): [f"<{'abcdef'[level]}_{code}>" for level, code in enumerate(row)] for i, row in enumerate(codes)}


def test_vocabulary_is_sorted_as_strings():
    codes = ItemCodes(np.array([[0, 7], [1, 7], [2, 10], [10, 0], [100, 7], [101, 7]]))
    assert codes.vocabulary == (
        "<pad>", "</s>", "<unk>",
        "<a_0>", "<a_100>", "<a_101>", "<a_10>", "<a_1>", "<a_2>",
        "<b_0>", "<b_10>", "<b_7>",
    )  # fmt: skip
    assert codes.tokens.tolist() == [[3, 11], [7, 11], [8, 10], [6, 9], [4, 11], [5, 11]]


def test_distinct_codes_and_their_items():
    codes = ItemCodes(np.array([[1, 0], [0, 5], [1, 0], [0, 4], [1, 0]]))
    assert codes.distinct.tolist() == [[0, 4], [0, 5], [1, 0]]
    assert codes.code_of_item.tolist() == [2, 1, 2, 0, 2]
    assert codes.items_per_code.tolist() == [1, 1, 3]
    assert (codes.items, codes.levels) == (5, 2)


@given(tables)
def test_tokens_spell_the_codes(table):
    codes = ItemCodes(table)
    spelled = [[codes.vocabulary[token] for token in row] for row in codes.tokens]
    assert spelled == list(strings(table).values())
    assert [[codes.vocabulary[token] for token in row] for row in codes.distinct_tokens] == [
        spelled[list(codes.code_of_item).index(code)] for code in range(len(codes.distinct))
    ]


@given(tables)
def test_the_tokens_of_a_level_are_contiguous(table):
    codes = ItemCodes(table)
    levels = [np.unique(codes.tokens[:, level]) for level in range(codes.levels)]
    assert np.concatenate(levels).tolist() == list(range(len(SPECIAL_TOKENS), len(codes.vocabulary)))


@given(tables)
def test_strings_round_trip(table):
    read = ItemCodes.from_strings(json.loads(json.dumps(strings(table))), "codes.json")
    assert np.array_equal(read.codes, table)


def test_file_round_trip(tmp_path):
    codes = ItemCodes(np.array([[3, 1, 0], [2, 200, 9]]))
    codes.write(tmp_path / "codes.parquet")
    assert list(pd.read_parquet(tmp_path / "codes.parquet")) == ["item", "level_1", "level_2", "level_3"]
    assert np.array_equal(ItemCodes.read(tmp_path / "codes.parquet").codes, codes.codes)


@pytest.mark.parametrize(
    "columns",
    [
        {"item": [0, 1], "level_1": [0, -1]},
        {"item": [1, 0], "level_1": [0, 1]},
        {"item": [0, 1], "level_2": [0, 1]},
        {"item": [0, 1], "level_1": ["<a_0>", "<a_1>"]},
        {"item": [0, 1]},
        {"item": [], "level_1": []},
    ],
)
def test_a_file_with_something_else_is_named(tmp_path, columns):
    pd.DataFrame(columns).to_parquet(tmp_path / "codes.parquet")
    with pytest.raises(UserError, match=r"codes\.parquet: not a table of item codes"):
        ItemCodes.read(tmp_path / "codes.parquet")


def test_files_that_are_missing_or_no_parquet_are_named(tmp_path):
    with pytest.raises(UserError, match=r"codes\.parquet: not found"):
        ItemCodes.read(tmp_path / "codes.parquet")
    (tmp_path / "codes.parquet").write_text("item,level_1\n0,0\n")
    with pytest.raises(UserError, match=r"codes\.parquet: not a table of item codes"):
        ItemCodes.read(tmp_path / "codes.parquet")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "contains no codes"),
        ({"0": []}, "contains no codes"),
        ({"0": ["<a_1>"], "2": ["<a_2>"]}, "item 1 has no code; expected ids 0 to 1"),
        ({"0": ["<a_1>", "<b_1>"], "1": ["<a_1>"]}, "item '1' has 1 tokens, item '0' has 2"),
        ({"0": ["<b_1>"]}, "item '0': expected a token like <a_0> at level 1, found '<b_1>'"),
        ({"0": ["<a_1>", "<b_-3>"]}, "at level 2, found '<b_-3>'"),
        ({"0": ["<a_01>"]}, "found '<a_01>'"),
        ({"0": ["<a_1> "]}, "found '<a_1> '"),
        ({"0": ["<a_²>"]}, "found '<a_²>'"),
        ({"0": ["<a_>"]}, "found '<a_>'"),
        ({"0": "<a_1>"}, "item '0'"),
        ({"0": [1, 2]}, "item '0'"),
        ({"0": 5}, "item '0'"),
        ({"0": [f"<{letter}_0>" for letter in "abcdefghijklmnopqrstuvwxyz"] + ["<aa_0>"]}, "item '0'"),
    ],
)
def test_malformed_strings_name_file_and_item(table, message):
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        ItemCodes.from_strings(table, "Office.index.json")
    assert str(caught.value).startswith("Office.index.json: ")


@pytest.mark.parametrize("codes", [np.zeros((0, 4)), np.zeros((4, 0)), np.zeros(4), np.zeros((1, 27)), [[-1]]])
def test_impossible_tables_are_refused(codes):
    with pytest.raises(ValueError, match="codes must"):
        ItemCodes(np.asarray(codes, dtype=np.int64))


def test_as_many_levels_as_letters():
    row = [f"<{letter}_0>" for letter in "abcdefghijklmnopqrstuvwxyz"]
    assert ItemCodes.from_strings({"0": row}, "codes.json").levels == 26


@given(st.integers(0, 25), st.integers(0, 9_999_999))
def test_code_strings_round_trip(level, code):
    assert parse_code_string(code_string(level, code), level) == code


def test_golden_vocabulary(golden):
    codes = ItemCodes.from_strings(golden["codes"], "expected.json")
    assert {token: i for i, token in enumerate(codes.vocabulary)} == golden["vocabulary"]
    assert (codes.items, codes.levels, len(codes.vocabulary)) == (400, 4, 67)
