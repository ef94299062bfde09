"""Filtering, numbering, order and split against plain Python; errors name damaged files."""

import json

import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from apao.data.base import RawTables
from apao.data.histories import Histories
from apao.data.prepared import prepare
from apao.data.table import Table
from apao.data.ties import tied
from apao.errors import UserError
from apao.files import verified
from apao.stages.download import download
from apao.stages.preprocess import preprocess
from apao.study.paths import DatasetPaths

rows_of_raw = st.lists(
    st.tuples(st.sampled_from("abcd"), st.sampled_from("pqrst"), st.integers(-5, 5)), min_size=12, max_size=70
)


def raw_of(rows, items=None):
    return RawTables(pd.DataFrame(rows, columns=["user", "item", "timestamp"]), items)


def slow_prepare(rows, core):
    """Raw ids of users and items by number, and sorted (user, item, time, split), with dictionaries and loops."""
    while True:
        users, items = [r[0] for r in rows], [r[1] for r in rows]
        kept = [r for r in rows if users.count(r[0]) >= core and items.count(r[1]) >= core]
        if kept == rows:
            break
        rows = kept
    user_ids, item_ids = list(dict.fromkeys(r[0] for r in rows)), list(dict.fromkeys(r[1] for r in rows))
    table = []
    for number, user in enumerate(user_ids):
        history = sorted((r for r in rows if r[0] == user), key=lambda r: r[2])  # sorted() is stable
        splits = ["train"] * (len(history) - 2) + ["valid", "test"]
        table += [(number, item_ids.index(r[1]), r[2], split) for r, split in zip(history, splits, strict=True)]
    return user_ids, item_ids, table


@given(rows_of_raw)
def test_prepare(rows):
    user_ids, item_ids, expected = slow_prepare(rows, 3)
    if not expected:
        nothing = "none of the .* interactions is left after the 3-core filter" if rows else "hold no interactions"
        with pytest.raises(UserError, match=nothing):
            prepare("d", raw_of(rows), 3)
        return
    prepared = prepare("d", raw_of(rows), 3)
    assert list(prepared.interactions.itertuples(index=False, name=None)) == expected
    assert [str(t) for t in prepared.interactions.dtypes] == ["int32", "int32", "int64", "category"]
    assert prepared.items["raw_id"].tolist() == item_ids
    assert prepared.items["item"].tolist() == list(range(len(item_ids)))
    assert prepared.users["raw_id"].tolist() == user_ids
    assert prepared.duplicates == len(rows) - len(set(rows))
    raw_rows = [rows[i] for i in prepared.rows]
    assert [(item, time) for _, item, time in raw_rows] == [(item_ids[i], time) for _, i, time, _ in expected]


@given(st.permutations([(u, i, 10 * u + i) for u in range(3) for i in range(4)]))
def test_without_ties_the_histories_do_not_depend_on_the_order_of_the_file(rows):
    prepared = prepare("d", raw_of([(str(u), str(i), t) for u, i, t in rows]), 3)
    raw_id = prepared.items["raw_id"].to_numpy()
    for _, history in prepared.interactions.groupby("user"):
        assert raw_id[history["item"]].tolist() == ["0", "1", "2", "3"]
        assert history["split"].tolist() == ["train", "train", "valid", "test"]


def test_ties_keep_the_order_of_the_file():
    rows = [(user, item, 7) for item in "zyxw" for user in "ab"]
    prepared = prepare("d", raw_of(rows), 2)
    assert prepared.items["raw_id"].tolist() == list("zyxw")
    assert prepared.interactions["item"].tolist() == [0, 1, 2, 3] * 2
    assert tied(prepared.interactions).all()


@given(rows_of_raw)
def test_a_numbered_table_keeps_its_numbers(rows):
    _, _, table = slow_prepare(rows, 3)
    assume(table)
    first = list(dict.fromkeys(item for _, item, _, _ in table))
    table = [(user, first.index(item), time, split) for user, item, time, split in table]
    prepared = prepare("d", raw_of([(str(user), str(item), time) for user, item, time, _ in table]), 3)
    assert list(prepared.interactions.itertuples(index=False, name=None)) == table
    assert prepared.items["raw_id"].tolist() == [str(item) for item in range(len(first))]


def test_texts_are_joined_in_the_order_of_the_columns():
    rows = [(user, item, time) for user in "abc" for time, item in enumerate("pqrs")]
    items = pd.DataFrame(
        [("q", "Two  words.", ""), ("s", "", "Only\nthis"), ("p", "Name", "Drama, War."), ("unused", "x", "y")],
        columns=["item", "title", "genres"],
    )
    prepared = prepare("d", raw_of(rows, items), 3)
    assert prepared.items["text"].tolist() == ["Name. Drama, War", "Two words", "", "Only this"]
    assert prepared.items["title"].tolist() == ["Name", "Two words.", "", ""]
    without = prepare("d", raw_of(rows), 3).items
    assert without["text"].tolist() == without["title"].tolist() == [""] * 4


@pytest.fixture
def shop(project):
    """A downloaded table of the user's own: 3 users x 4 items and one user whom the filter removes."""
    lines = ["user,item,timestamp,name"]
    lines += [f"u{u},i{i},{100 - i},Item {i}" for u in range(3) for i in range(4)] + ["lonely,i0,1,Item 0"]
    (project / "shop.csv").write_text("\n".join(lines) + "\n")
    source = Table.model_validate(
        {"source": "csv", "path": "shop.csv", "text": ["name"], "core": 3, "recipe": "r", "codes": "c"}
    )
    download("shop", source, None)
    return source


def test_the_stage_writes_what_later_stages_read(shop):
    preprocess("shop", shop)
    paths = DatasetPaths("shop")
    assert json.loads(paths.stats.read_text()) == {
        "dataset": "shop",
        "users": 3,
        "items": 4,
        "interactions": 12,
        "density_percent": 100.0,
        "core": 3,
        "raw_interactions": 13,
        "malformed": {},
        "duplicates": 0,
        "duplicates_rule": "keep",
        "times": "numbers",
        "timestamp_decimals": 0,
        "tie_rule": "interactions of a user with equal timestamps keep the order of the raw file",
        "tied_share": 0.0,
        "split": "leave-one-out",
        "interactions_by_part": {"train": 6, "valid": 3, "test": 3},
        "users_with_test_equal_to_validation_item": 0,
        "history_length": {"min": 4.0, "quarter": 4.0, "median": 4.0, "three_quarters": 4.0, "max": 4.0},
        "items_without_row": 0,
        "item_rows_unused": 0,
        "items_without_text": 0,
        "items_with_most_common_text": 1,
        "notes": [],
        "warnings": [],
    }
    table = pd.read_parquet(verified(paths.interactions))
    assert table["item"].tolist() == [3, 2, 1, 0] * 3
    assert table["split"].tolist() == ["train", "train", "valid", "test"] * 3
    assert pd.read_parquet(verified(paths.items))["text"].tolist() == ["Item 0", "Item 1", "Item 2", "Item 3"]
    assert pd.read_parquet(verified(paths.users))["raw_id"].tolist() == ["u0", "u1", "u2"]
    assert Histories.load(paths.interactions).items.tolist() == [3, 2, 1, 0] * 3
    record = json.loads((paths.folder / "preprocess.provenance.json").read_text())
    assert list(record["inputs"]) == [str(paths.manifest)]
    assert sorted(record["outputs"]) == ["interactions.parquet", "items.parquet", "stats.json", "users.parquet"]


def test_running_twice_gives_the_same_bytes(shop):
    preprocess("shop", shop)
    paths = DatasetPaths("shop")
    files = (paths.interactions, paths.items, paths.stats)
    before = [path.read_bytes() for path in files]
    preprocess("shop", shop)
    assert [path.read_bytes() for path in files] == before


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), r"expected \d+ bytes as downloaded, found \d+"),
        (flip_a_bit, "its content changed"),
        (lambda path: path.unlink(), "not found, though the manifest lists it"),
    ],
)
def test_a_damaged_raw_file_is_named(shop, project, damage, message):
    damage(project / "shop.csv")
    with pytest.raises(UserError, match=rf"data/shop/raw/interactions\.table: {message}.*apao download shop"):
        preprocess("shop", shop)
    assert not DatasetPaths("shop").interactions.exists()


def test_a_damaged_manifest_is_named(shop):
    flip_a_bit(DatasetPaths("shop").manifest)
    with pytest.raises(UserError, match=r"manifest\.json: its content does not match"):
        preprocess("shop", shop)


def test_a_manifest_of_another_table_is_named(shop):
    other = shop.model_copy(update={"path": shop.path.with_name("other.csv")})
    message = r"manifest\.json: is a download for .*shop\.csv.*other\.csv.*apao download shop"
    with pytest.raises(UserError, match=message):
        preprocess("shop", other)


def test_nothing_downloaded(project):
    source = Table.model_validate({"source": "csv", "path": "shop.csv", "recipe": "r", "codes": "c"})
    with pytest.raises(UserError, match=r"data/shop/raw/manifest\.json: not found"):
        preprocess("shop", source)


def test_nothing_left(shop):
    with pytest.raises(
        UserError, match="shop: none of the 13 interactions is left after the 5-core filter; lower core"
    ):
        preprocess("shop", shop.model_copy(update={"core": 5}))
