"""Histories and examples against plain Python lists."""

import json

import numpy as np
import pandas as pd
import pytest
from helpers.models import histories_of
from hypothesis import given
from hypothesis import strategies as st

from apao.data.histories import Histories
from apao.errors import UserError
from apao.stages.record import Stage

lists = st.lists(st.lists(st.integers(0, 9), min_size=3, max_size=12), min_size=1, max_size=8)


@given(lists)
def test_training_examples_and_targets(rows):
    histories = histories_of(rows)
    users, positions = histories.training_examples()
    expected = [(u, i) for u, row in enumerate(rows) for i in range(1, len(row) - 2)]
    assert list(zip(users.tolist(), positions.tolist(), strict=True)) == expected
    assert histories.users == len(rows)
    assert histories.train_end(np.arange(len(rows))).tolist() == [len(row) - 2 for row in rows]
    for split, last in (("valid", -2), ("test", -1)):
        at = histories.evaluation_targets(split)
        assert histories.items[histories.offsets[:-1] + at].tolist() == [row[last] for row in rows]


@given(lists)
def test_train_popularity(rows):
    seen = [item for row in rows for item in row[:-2]]
    assert histories_of(rows).train_popularity(11).tolist() == [seen.count(item) for item in range(11)]


@given(lists, st.integers(1, 13))
def test_newest_items_of_each_user(rows, most):
    kept = [row[-most:] for row in rows]
    longest = max(map(len, kept))
    padded = [row + [-1] * (longest - len(row)) for row in kept]
    users = np.arange(len(rows))[::-1]
    assert histories_of(rows).newest(users, most).tolist() == padded[::-1]


@given(lists)
def test_rows_of_users_in_any_order(rows):
    users = np.arange(len(rows))[::-1]
    of_user, items = histories_of(rows).rows_of(users)
    expected = [(i, item) for i, row in enumerate(rows[::-1]) for item in row]
    assert list(zip(of_user.tolist(), items.tolist(), strict=True)) == expected


def table(users, items):
    columns = {"user": np.array(users, dtype=np.int32), "item": np.array(items, dtype=np.int32)}
    return pd.DataFrame({**columns, "split": pd.Categorical(["train"] * len(users))})


def test_load(tmp_path):
    path = tmp_path / "interactions.parquet"
    table([0, 0, 0, 1, 1, 1, 1], [3, 1, 2, 2, 2, 0, 1]).to_parquet(path)
    histories = Histories.load(path)
    assert histories.offsets.tolist() == [0, 3, 7]
    assert histories.items.tolist() == [3, 1, 2, 2, 2, 0, 1]
    assert histories.items.dtype == np.int64


@pytest.mark.parametrize(
    ("users", "message"),
    [
        ([0, 0, 0, 1, 1], "user 1 has 2 interactions"),
        ([0, 0, 0, 2, 2, 2], "expected users 0, 1, 2"),
        ([0, 0, 0, 1, 1, 1, 0], "expected users 0, 1, 2"),
        ([1, 1, 1], "expected users 0, 1, 2"),
        ([], "contains no interactions"),
    ],
)
def test_load_names_what_is_wrong(tmp_path, users, message):
    path = tmp_path / "interactions.parquet"
    table(users, [0] * len(users)).to_parquet(path)
    with pytest.raises(UserError, match=rf"interactions\.parquet: .*{message}"):
        Histories.load(path)


def test_load_refuses_items_below_0(tmp_path):
    path = tmp_path / "interactions.parquet"
    table([0, 0, 0], [1, -1, 2]).to_parquet(path)
    with pytest.raises(UserError, match="items from 0"):
        Histories.load(path)


def test_load_of_what_is_no_table(tmp_path):
    path = tmp_path / "interactions.parquet"
    with pytest.raises(UserError, match="not found"):
        Histories.load(path)
    path.write_text("user,item\n")
    with pytest.raises(UserError, match="not a table"):
        Histories.load(path)
    pd.DataFrame({"user": [0]}).to_parquet(path)
    with pytest.raises(UserError, match="not a table"):
        Histories.load(path)


def test_load_notices_damage(tmp_path):
    with Stage("preprocess", tmp_path, [], {}) as stage, stage.output("interactions.parquet") as path:
        table([0, 0, 0], [1, 2, 3]).to_parquet(path)
    path = tmp_path / "interactions.parquet"
    Histories.load(path)
    assert "interactions.parquet" in json.loads((tmp_path / "preprocess.provenance.json").read_text())["outputs"]
    table([0, 0, 0], [1, 2, 4]).to_parquet(path)
    with pytest.raises(UserError, match="does not match the hash"):
        Histories.load(path)
