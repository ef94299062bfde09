"""Two runs side by side, against their own files and counting by hand."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.models import random_codes
from helpers.project import ROOT, write_dataset

from apao.cli import app
from apao.errors import UserError
from apao.evaluation.metrics import user_metrics
from apao.stages.compare import compare
from apao.stages.compare_text import as_text
from apao.study.paths import DatasetPaths

PUBLISHED = ROOT / "results" / "published" / "office" / "llama"
CE, APAO = (str(PUBLISHED / objective / "seed42") for objective in ("ce", "apao-pointwise"))
A, B = "toy/llama/ce/seed1", "toy/llama/apao-pointwise+beta=0.4/seed1"
FIRST, SECOND = [1, 12, 0, 4, 20, 10], [1, 3, 2, 0, 11, 10]
"""Ranks of six users in both runs: the second and third are gained, the fourth is lost."""


def write_run(name, ranks, items, group=1, dataset="toy", **record):
    folder = Path("results") / name
    folder.mkdir(parents=True)
    run = {
        "run": name,
        "dataset": dataset,
        "training": {"lr": 1e-3},
        "seed": 1,
        "start": None,
        "inputs": {"codes": "1"},
    }
    (folder / "run.json").write_text(json.dumps(run | record))
    before = np.maximum(np.array(ranks) - 1, 0) * group
    table = {"user": range(len(ranks)), "item": items, "rank": ranks, "items_before": before, "group": group}
    pd.DataFrame({"split": "test", **table}).to_parquet(folder / "ranks.parquet")
    metrics = {"test": {"prefix_recall@20": [0.5, 0.25]}, "valid": {}}
    (folder / "metrics.json").write_text(json.dumps(metrics))


@pytest.fixture
def targets(tmp_path, monkeypatch):
    """Two runs below the working directory, and the dataset they are of."""
    monkeypatch.chdir(tmp_path)
    histories = write_dataset(random_codes(20, 3, 5), [3, 4, 5, 6, 3, 60], seed=1)
    items = histories.items[histories.offsets[1:] - 1].tolist()
    write_run(A, FIRST, items)
    write_run(B, SECOND, items, training={"lr": 2e-3, "warmup": 0.1}, inputs={"codes": "2"})
    table = pd.DataFrame({"item": range(20), "raw_id": "x", "title": [f"Film {i}" for i in range(20)], "text": ""})
    table.to_parquet(DatasetPaths("toy").items)
    return histories, items


def test_metrics_intervals_and_parameters_of_the_published_runs():
    found = compare(CE, APAO, "test")
    metrics = [json.loads((Path(run) / "metrics.json").read_text())["test"] for run in (CE, APAO)]
    rows = {row.metric: row for row in found.metrics}
    assert len(rows) == 12
    for name, row in rows.items():
        assert (row.first, row.second) == pytest.approx([one[name] for one in metrics], abs=1e-12)
        assert row.difference == pytest.approx(row.second - row.first) and row.low < row.difference < row.high
        assert 0 < row.p <= row.p_holm <= 1
    # As README has it.
    gain = rows["recall@20"]
    assert (f"{gain.difference:.4f}", f"{gain.low:.4f}", f"{gain.high:.4f}") == ("0.0236", "0.0163", "0.0308")
    assert found.parameters["objective.type"] == ["ce", "apao-pointwise"]
    assert "objective.eos" not in found.parameters and not found.other_inputs
    assert found.prefix_recall[0] == [one["prefix_recall@20"][0] for one in metrics]


def test_without_the_data_there_are_no_titles(tmp_path, monkeypatch):
    """Of published runs in folders of their own, outside a study."""
    monkeypatch.chdir(tmp_path)
    runs = [shutil.copytree(run, tmp_path / str(number)) for number, run in enumerate((CE, APAO))]
    found = compare(*map(str, runs), "test")
    assert found.examples_gained and all(one.target is one.history is None for one in found.examples_gained)


def test_the_other_way_round_signs_change():
    forth, back = compare(CE, APAO, "valid"), compare(APAO, CE, "valid")
    assert (forth.gained, forth.lost) == (back.lost, back.gained)
    for one, other in zip(forth.metrics, back.metrics, strict=True):
        assert one.difference == -other.difference and one.p == pytest.approx(other.p)
        assert (one.low, one.high) == pytest.approx((-other.high, -other.low), abs=1e-4)


def test_users_gained_and_lost_with_titles(targets):
    histories, items = targets
    found = compare(A, B, "test")
    assert (found.gained, found.lost) == (2, 1)
    # The best new rank first.
    assert [(one.user, one.first_rank, one.second_rank) for one in found.examples_gained] == [(2, 0, 2), (1, 12, 3)]
    (lost,) = found.examples_lost
    assert (lost.user, lost.first_rank, lost.second_rank) == (3, 4, 0)
    begin, end = histories.offsets[3], histories.offsets[4]
    assert lost.target == f"Film {items[3]}"
    assert "lost: user u3, target Film" in as_text(found)
    assert lost.history == [f"Film {i}" for i in histories.items[begin : end - 1][-5:]]


def test_parameters_that_differ_and_other_inputs(targets):
    found = compare(A, B, "test")
    assert found.parameters == {"training.lr": [1e-3, 2e-3], "training.warmup": [None, 0.1]}
    assert found.other_inputs == ["codes"]
    text = as_text(found)
    assert "training.warmup  -      0.1" in text and "different versions of codes" in text


def test_metrics_are_those_of_each_users_rank(targets):
    found = compare(A, B, "test")
    ones = pd.DataFrame({"group": 1}, index=range(6))
    first, second = (
        user_metrics(ones.assign(rank=r, items_before=np.maximum(np.array(r) - 1, 0))) for r in (FIRST, SECOND)
    )
    assert {row.metric for row in found.metrics} == {name for name in first if not name.startswith("item_")}
    for row in found.metrics:
        assert row.difference == pytest.approx((second[row.metric] - first[row.metric]).mean())


def test_item_level_is_shown_where_items_share_codes(targets):
    _, items = targets
    write_run("toy/llama/ce/seed2", FIRST, items, group=2)
    found = compare(A, "toy/llama/ce/seed2", "test")
    assert [row.metric for row in found.metrics if row.metric.startswith("item_")]
    assert "Recall@10, item level" in as_text(found)


def test_a_run_and_itself(targets):
    found = compare(A, A, "test")
    assert not found.parameters and not found.gained and not found.lost
    assert all((row.difference, row.low, row.high, row.p) == (0, 0, 0, 1) for row in found.metrics)
    assert "Both have the same parameters." in as_text(found)


def test_what_a_run_starts_from_is_named_in_one_line(targets):
    _, items = targets
    write_run("toy/llama/ce->point/seed1", FIRST, items, start={"run": A, "training": {"lr": 1}})
    assert compare(A, "toy/llama/ce->point/seed1", "test").parameters == {"start.run": [None, A]}


def test_data_that_numbers_items_in_another_way_gives_no_titles(targets):
    shutil.rmtree("data")
    write_dataset(random_codes(20, 3, 5), [3, 4, 5, 6, 3, 60], seed=2)
    table = pd.DataFrame({"item": range(20), "raw_id": "x", "title": "Film", "text": ""})
    table.to_parquet(DatasetPaths("toy").items)
    found = compare(A, B, "test")
    assert found.examples_lost[0].target is None
    item = found.examples_lost[0].item
    assert f"lost: user number 3, target item {item}: rank 4 in A, not found in B" in as_text(found)


def test_compare_refuses(targets):
    _, items = targets
    write_run("toy/llama/ce/seed3", FIRST, [0] * 6)
    with pytest.raises(UserError, match="seed3: its ranks are of other users or targets"):
        compare(A, "toy/llama/ce/seed3", "test")
    write_run("other/llama/ce/seed1", FIRST, items, dataset="other")
    with pytest.raises(UserError, match="is of toy, other/llama/ce/seed1 of other"):
        compare(A, "other/llama/ce/seed1", "test")
    with pytest.raises(UserError, match="holds no ranks of the split valid"):
        compare(A, B, "valid")
    with pytest.raises(UserError, match=r"run\.json: not found"):
        compare(A, "toy/llama/ce/seed9", "test")
    with pytest.raises(UserError, match="does not name a run"):
        compare(A, "nonsense", "test")


def test_command_prints_a_table_or_json(targets, capsys):
    app(["compare", A, B], standalone_mode=False)
    assert "Among the first 10: 2 users gained by B, 1 lost." in capsys.readouterr().out
    app(["compare", A, B, "--format", "json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out)["gained"] == 2
