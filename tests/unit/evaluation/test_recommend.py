"""The command ``recommend``: the library's lists, from every kind of input to every format."""

import json
import sys
from io import StringIO

import pandas as pd
import pytest
import torch
from helpers.project import TOY
from typer.testing import CliRunner

import apao
from apao.cli import app
from apao.stages.evaluate import evaluate
from apao.stages.recommend import How, Wanted
from apao.stages.recommend import recommend as stage


@pytest.fixture
def run(toy):
    """The name of an evaluated run, and it as the library loads it."""
    evaluate(toy.run, toy.params, torch.device("cpu"))
    return str(toy.run), apao.load(toy.run.folder, device="cpu")


def recommend(*arguments, code=0):
    done = CliRunner().invoke(app, ["recommend", *map(str, arguments), "--device", "cpu"])
    assert done.exit_code == code, (done.output, done.exception)
    return done


def lists_of(path, *arguments):
    recommend(*arguments, "--output", path)
    return pd.read_csv(path, dtype={"user": str})


HISTORIES = {"a": ["i3", "i1"], "b": ["i7"], "c": ["i1", "i2", "i3", "i4"]}
ROWS = pd.DataFrame([(user, item) for user, items in HISTORIES.items() for item in items], columns=["user", "item"])


def expected(model, k=4, **how):
    found = model.recommend(list(HISTORIES.values()), k=k, **how)
    found.insert(0, "user", [list(HISTORIES)[number] for number in found.pop("history")])
    return found


def as_json_lines(path):
    path.write_text("".join(json.dumps({"user": user, "history": h}) + "\n" for user, h in HISTORIES.items()))


WRITTEN = {
    "h.jsonl": as_json_lines,
    "h.csv": lambda path: ROWS.to_csv(path, index=False),
    "h.parquet": lambda path: ROWS.to_parquet(path, index=False),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_a_file_of_histories(run, tmp_path, name):
    name_of_run, model = run
    WRITTEN[name](tmp_path / name)
    found = lists_of(tmp_path / "lists.csv", name_of_run, "--file", tmp_path / name, "-k", 4)
    pd.testing.assert_frame_equal(found, expected(model), check_dtype=False)


def test_formats_hold_the_same(run, tmp_path):
    _, model = run
    as_json_lines(tmp_path / "h.jsonl")
    arguments = (model.folder, "--file", tmp_path / "h.jsonl", "-k", 4)
    recommend(*arguments, "--output", tmp_path / "lists.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "lists.parquet"), expected(model))
    csv = recommend(*arguments, "--format", "csv").stdout
    assert csv == expected(model).to_csv(index=False, lineterminator="\n")
    records = [json.loads(line) for line in recommend(*arguments, "--format", "json").stdout.splitlines()]
    assert [record["user"] for record in records] == list(HISTORIES)
    rows = [{"user": record["user"], **item} for record in records for item in record["items"]]
    pd.testing.assert_frame_equal(pd.DataFrame(rows), expected(model))
    lines = recommend(*arguments).stdout.splitlines()
    assert lines[0] == "user a" and lines[1].split() == ["rank", "item", "title", "code", "logp", "shared", "by"]
    first = expected(model).iloc[0]
    cells = [
        "1",
        first["item"],
        *first["title"].split(),
        first["code"],
        f"{first['logp']:.3f}",
        str(first["shared_by"]),
    ]
    assert lines[2].split() == cells


def test_lists_are_written_in_parts(run, tmp_path, monkeypatch):
    name, model = run
    monkeypatch.setattr("apao.stages.recommend.AT_ONCE", 2)
    as_json_lines(tmp_path / "h.jsonl")
    for suffix, read in (("csv", pd.read_csv), ("parquet", pd.read_parquet)):
        recommend(name, "--file", tmp_path / "h.jsonl", "-k", 4, "--output", tmp_path / f"lists.{suffix}")
        pd.testing.assert_frame_equal(read(tmp_path / f"lists.{suffix}"), expected(model), check_dtype=False, atol=1e-5)


def test_lists_that_are_all_empty_at_first(run, tmp_path, monkeypatch):
    """A history of every allowed item gets none."""
    name, _ = run
    monkeypatch.setattr("apao.stages.recommend.AT_ONCE", 1)
    (tmp_path / "only.txt").write_text("i1\n")
    (tmp_path / "h.jsonl").write_text('{"user": "all", "history": ["i1"]}\n{"user": "one", "history": ["i2"]}\n')
    output = tmp_path / "lists.parquet"
    recommend(name, "--file", tmp_path / "h.jsonl", "-k", 1, "--only", tmp_path / "only.txt", "--output", output)
    found = pd.read_parquet(output)
    assert found[["user", "rank", "item"]].to_numpy().tolist() == [["one", 1, "i1"]]


def test_users_and_histories(toy, run, tmp_path):
    name, _ = run
    raw = [f"i{item}" for item in toy.histories.rows_of(pd.Index([4]).to_numpy())[1]]
    found = lists_of(tmp_path / "one.csv", name, "--user", "u4")
    again = lists_of(tmp_path / "two.csv", name, "--history", ",".join(raw))
    assert found["user"].unique() == ["u4"] and again["user"].unique() == ["1"]
    pd.testing.assert_frame_equal(found.drop(columns="user"), again.drop(columns="user"))
    assert not set(found["item"]) & set(raw)


def test_options_are_those_of_the_library(run, tmp_path):
    name, model = run
    as_json_lines(tmp_path / "h.jsonl")
    (tmp_path / "only.txt").write_text("i1\ni2\ni3\ni9\n")
    (tmp_path / "without.txt").write_text("i9\n")
    arguments = (name, "--file", tmp_path / "h.jsonl")
    found = lists_of(
        tmp_path / "lists.csv", *arguments, "-k", 4, "--exact", "--keep-seen", "--only", tmp_path / "only.txt"
    )
    pd.testing.assert_frame_equal(
        found, expected(model, exact=True, keep_seen=True, only=["i1", "i2", "i3", "i9"]), check_dtype=False
    )
    found = lists_of(tmp_path / "lists.csv", *arguments, "-k", 4, "--beam", 3, "--without", tmp_path / "without.txt")
    pd.testing.assert_frame_equal(found, expected(model, beam=3, without=["i9"]), check_dtype=False)


def test_items_that_training_never_saw_are_named(run, tmp_path):
    name, model = run
    counts = model.items.set_index("raw_id")["train_count"]
    never, often = counts[counts == 0].index[0], counts.idxmax()
    assert f"warning: '{never}' not in the training data" in recommend(name, "--history", f"{never},{often}").stderr
    assert "warning" not in recommend(name, "--history", often).stderr


REFUSED = [
    (["--history", "i1,nope"], "--history: unknown item 'nope'; the run's catalogue has ids like 'i0'"),
    (["--history", ","], "--history ',': expected comma-separated item ids"),
    (["--history", "i1", "-k", "31"], "k is 31; of 30 items expected 1 to 30"),
    (
        ["--history", "i1", "--user", "u1"],
        "expected exactly one of --user ID, --history ID,ID,... and --file FILE",
    ),
    ([], "expected exactly one of --user ID"),
    (["--user", "nobody"], "data/toy/users.parquet: has no user 'nobody'"),
    (["--file", "absent.csv"], "absent.csv: not found"),
    (["--file", "h.txt"], "h.txt: expected a file that ends in .jsonl, .csv, .parquet"),
    (["--file", "again.csv"], "again.csv:4: user 'a' also has earlier rows"),
    (["--file", "unknown.csv"], "unknown.csv:3: unknown item 'nope'"),
    (["--file", "blank.csv"], "blank.csv:2: expected a user and an item, found 'a' and ''"),
    (["--file", "columns.csv"], "columns.csv:1: the header has no column 'item'"),
    (["--file", "none.csv"], "none.csv: contains no histories"),
    (["--file", "empty.jsonl"], "empty.jsonl:2: the history of user 'b' is empty"),
    (["--file", "broken.jsonl"], "broken.jsonl:1: not valid JSON"),
    (["--file", "list.jsonl"], "list.jsonl:1: expected an object like"),
    (["--file", "unknown.jsonl"], "unknown.jsonl:1: unknown item 'nope'"),
    (["--file", "unknown.parquet"], "unknown.parquet: row 1: unknown item 'nope'"),
    (["--file", "broken.parquet"], "broken.parquet: not a parquet table"),
    (["--file", "column.parquet"], "column.parquet: expected one column 'user' of user ids; known: item, uid"),
    (["--file", "null.parquet"], "null.parquet: row 1 has nothing in the column 'user'; expected user ids"),
    (["--history", "i1", "--only", "items.txt"], "items.txt:2: unknown item 'nope'"),
    (["--history", "i1", "--only", "empty.txt"], "empty.txt: contains no item ids"),
    (["--history", "i1", "--without", "absent.txt"], "absent.txt: not found"),
    (["--history", "i1", "--format", "xml"], "--format xml: unknown format"),
    (["--history", "i1", "--format", "parquet"], "--format parquet: cannot be printed"),
    (["--history", "i1", "--output", "lists.xlsx"], "lists.xlsx: no format has this suffix; expected .json, .jsonl"),
    (["--history", "i1", "--new-items", "none.csv"], "none.csv: expected a file new_items.parquet, which codes new"),
]
FILES = {
    "again.csv": "user,item\na,i1\nb,i2\na,i3\n",
    "unknown.csv": "user,item\na,i1\na,nope\n",
    "blank.csv": "user,item\na,\n",
    "columns.csv": "user,id\na,i1\n",
    "none.csv": "user,item\n",
    "h.txt": "i1\n",
    "empty.jsonl": '{"user": "a", "history": ["i1"]}\n{"user": "b", "history": []}\n',
    "broken.jsonl": "{",
    "list.jsonl": '["i1"]\n',
    "unknown.jsonl": '{"user": "a", "history": ["nope"]}\n',
    "broken.parquet": "PAR1",
    "items.txt": "i1\nnope\n",
    "empty.txt": "",
}


@pytest.mark.parametrize("toy", ["tiger"], indirect=True)
@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_mistakes_are_one_line(run, arguments, message):
    for name, text in FILES.items():
        TOY.root.joinpath(name).write_text(text)
    pd.DataFrame({"user": ["a", "a"], "item": ["i1", "nope"]}).to_parquet("unknown.parquet")
    pd.DataFrame({"item": ["i1"], "uid": ["a"]}).to_parquet("column.parquet")
    pd.DataFrame({"user": ["a", None], "item": ["i1", "i2"]}).to_parquet("null.parquet")
    output = recommend(run[0], *arguments, code=1).stderr
    (line,) = [line for line in output.splitlines() if line.startswith("error:")]
    assert message in line


def test_histories_that_get_no_item_are_counted(run, tmp_path):
    name, _ = run
    as_json_lines(tmp_path / "h.jsonl")
    (tmp_path / "only.txt").write_text("i7\n")
    arguments = (name, "--file", tmp_path / "h.jsonl", "-k", 1, "--only", tmp_path / "only.txt")
    assert "warning: 1 of 3 histories get no item" in " ".join(recommend(*arguments).stderr.split())
    assert "get no item" not in recommend(*arguments, "--keep-seen").stderr


def test_a_narrow_beam_is_named_as_the_reason(run, tmp_path):
    name, model = run
    found = model.recommend([["i1"]], k=20, beam=1, keep_seen=True)["item"]
    printed = " ".join(recommend(name, "--history", "i1", "-k", 20, "--beam", 1).stderr.split())
    assert len(found) < 20
    assert "warning: 1 of 1 histories get fewer than 20 items, 0 none: a beam of 1 finds no more" in printed
    assert "fewer than" not in recommend(name, "--history", "i1", "-k", 20).stderr


def test_a_beam_wider_than_the_part_is_not_the_reason(run, tmp_path):
    (tmp_path / "only.txt").write_text("i2\ni5\n")
    arguments = (run[0], "--history", "i1", "-k", 20, "--only", tmp_path / "only.txt", "--beam")
    assert "fewer than" not in recommend(*arguments, 30).stderr
    assert "a beam of 1 finds no more" in " ".join(recommend(*arguments, 1).stderr.split())


def test_a_table_on_a_terminal_begins_a_line(run, monkeypatch):
    """The unfinished line of a bar would stand before it."""

    class Terminal(StringIO):
        def isatty(self):
            return True

    bars = []
    monkeypatch.setattr("apao.stages.recommend.progress", lambda what, total: bars.append(what))
    monkeypatch.setattr(sys, "stdout", Terminal())
    stage(run[0], Wanted(histories=("i3,i1",)), How(k=2), device="cpu")
    assert sys.stdout.getvalue().startswith("user 1\n") and not bars


def test_a_user_named_twice_is_one_user(run, tmp_path):
    name, _ = run
    once = lists_of(tmp_path / "once.csv", name, "--user", "u4")
    pd.testing.assert_frame_equal(lists_of(tmp_path / "twice.csv", name, "--user", "u4", "--user", "u4"), once)
