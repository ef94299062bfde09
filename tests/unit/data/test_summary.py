"""Counts and warnings of ``preprocess`` for tables with deliberate flaws."""

import json
import random

import pytest

from apao.data.table import Table
from apao.errors import UserError
from apao.stages.download import download
from apao.stages.preprocess import preprocess
from apao.study.paths import DatasetPaths

random.seed(0)
CLEAN = [
    f"u{user},i{item},{time},thing {item}"
    for user in range(30)
    for time, item in enumerate(random.sample(range(15), 6))
]


@pytest.fixture
def run(project, capsys):
    """Preprocess a table; returns stats.json, what was printed, and the histories as (user, item, split)."""

    def runner(rows, items=None, **keys):
        (project / "t.csv").write_text("\n".join(["user,item,timestamp,title", *rows]) + "\n")
        if items is not None:
            (project / "items.csv").write_text("\n".join(["item,title", *items]) + "\n")
            keys["items_path"] = "items.csv"
        entry = Table.model_validate(
            {"source": "csv", "path": "t.csv", "text": ["title"], "recipe": "r", "codes": "c", **keys}
        )
        download("t", entry, None)
        preprocess("t", entry)
        return json.loads(DatasetPaths("t").stats.read_text()), capsys.readouterr().err

    return runner


def test_a_clean_table_is_four_lines(run):
    stats, said = run(CLEAN)
    assert stats["warnings"] == stats["notes"] == []
    assert said.splitlines() == [
        "t:",
        "  rows       180 read, 180 kept",
        "  times      numbers",
        "  users      30",
        "  items      15",
    ]


def test_repeated_rows_are_counted_and_dropped_on_request(run):
    stats, said = run([*CLEAN, *CLEAN])
    assert (stats["duplicates"], stats["interactions"]) == (180, 360)
    assert stats["users_with_test_equal_to_validation_item"] == 30
    assert "360 read, 360 kept, 180 that repeat an earlier row kept" in said
    assert "users      30, 30 with test item = validation item" in said
    (warning,) = stats["warnings"]
    assert "180 of 360 rows repeat" in warning
    assert "set duplicates: drop in datasets.t of params.yaml" in warning
    table = DatasetPaths("t").interactions
    repeated = table.read_bytes()

    stats, said = run([*CLEAN, *CLEAN], duplicates="drop")
    assert (stats["duplicates"], stats["interactions"], stats["warnings"]) == (180, 180, [])
    assert "360 read, 180 kept, 180 that repeat an earlier row dropped" in said
    dropped = table.read_bytes()
    run(CLEAN)
    assert dropped == table.read_bytes() != repeated


def test_duplicates_do_not_carry_a_user_through_the_filter(run):
    """Two events, each sent three times, are six rows."""
    rows = [*CLEAN, *["twice,i1,1000,thing 1", "twice,i2,1001,thing 2"] * 3]
    assert run(rows)[0]["users"] == 31
    assert run(rows, duplicates="drop")[0]["users"] == 30


def test_ties_sorted_by_item_are_a_warning_until_they_are_drawn(run):
    rows = sorted((f"{user},{item},5,{title}" for user, item, _, title in (row.split(",") for row in CLEAN)),
                  key=lambda row: row.split(",")[1])  # fmt: skip
    stats, said = run(rows)
    assert stats["tied_share"] == 1.0
    assert "100.0% of the interactions share their time with another" in said
    (warning,) = stats["warnings"]
    assert "sorted by item" in warning
    assert "ties: random in datasets.t of params.yaml" in warning
    assert f"warning: {warning}" in said
    stats, _ = run(rows, ties="random")
    assert stats["warnings"] == []
    assert "random order" in stats["tie_rule"]
    drawn = DatasetPaths("t").interactions
    same = drawn.read_bytes()
    run(rows, ties="random")
    assert drawn.read_bytes() == same
    run(rows, ties="random", ties_seed=1)
    assert drawn.read_bytes() != same


def test_ties_of_a_file_with_the_newest_rows_first(run):
    rows = [row.split(",") for row in CLEAN]
    halved = [",".join([user, item, str(int(time) // 2), title]) for user, item, time, title in rows]
    assert run(halved)[0]["warnings"] == []
    (warning,) = run(halved[::-1])[0]["warnings"]
    assert "newest rows first" in warning
    assert "sort the file oldest first, or set ties: random" in warning


def test_no_item_of_the_table(run):
    with pytest.raises(UserError) as raised:
        run(CLEAN, [f"x{item},thing {item}" for item in range(15)])
    said = str(raised.value)
    first = list(dict.fromkeys(row.split(",")[1] for row in CLEAN))
    for words in (
        "t: none of the 15 items",
        f"'{first[0]}' and '{first[1]}'",
        "'x0' and 'x1'",
        "spell the ids the same",
    ):
        assert words in said
    with pytest.raises(UserError, match="the item table is empty"):
        run(CLEAN, [])


def test_items_without_a_row_and_rows_without_an_item(run):
    stats, said = run(CLEAN, [f"{'i' if item < 10 else 'x'}{item},thing {item}" for item in range(15)])
    assert (stats["items_without_row"], stats["items_without_text"], stats["item_rows_unused"]) == (5, 5, 5)
    assert "15, 5 without a row in the item table, 5 without text, 5 unused texts of other items" in said
    (warning,) = stats["warnings"]
    assert "5 of 15 items have no row in the item table, such as 'i1" in warning
    assert "rows without interactions have ids like 'x10' and 'x11'" in warning


def test_items_without_text_and_with_the_same(run):
    stats, _ = run(CLEAN, [f"i{item},{'' if item < 5 else 'Unknown' if item < 10 else item}" for item in range(15)])
    assert (stats["items_without_row"], stats["items_without_text"]) == (0, 5)
    assert stats["items_with_most_common_text"] == 5
    empty, same = stats["warnings"]
    assert "5 of 15 items have a row but no text in the columns title" in empty
    assert "5 of 15 items have the same text, 'Unknown'" in same


def test_what_reading_did_is_in_both(run):
    rows = [row.replace("i3,", " i3,", 1) if n == 5 else row for n, row in enumerate(CLEAN)]
    rows = [row.replace("i", " i", 1) if n == 7 else row for n, row in enumerate(rows)]
    stats, said = run(rows)
    (note,) = stats["notes"]
    assert "blanks around item ids removed" in note
    assert f"  note       {note}" in said
