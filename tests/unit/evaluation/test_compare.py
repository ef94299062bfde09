"""Two runs side by side, against their own files and counting by hand."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.models import random_codes
from helpers.project import ROOT, write_dataset
from scipy.stats import t

from apao.cli import app
from apao.errors import UserError
from apao.evaluation.metrics import user_metrics
from apao.files import read_json
from apao.stages.compare import compare
from apao.stages.compare_text import as_text
from apao.study.paths import DatasetPaths

PUBLISHED = ROOT / "results" / "published" / "office" / "llama"
CE, APAO = (str(PUBLISHED / objective / "seed42") for objective in ("ce", "apao-pointwise"))
SASREC = str(ROOT / "results/published/office-item-id/sasrec/ce/seed42")
A, B = "toy/llama/ce/seed1", "toy/llama/apao-pointwise+beta=0.4/seed1"
FIRST, SECOND = [1, 12, 0, 4, 20, 10], [1, 3, 2, 0, 11, 10]
"""Ranks of six users in both runs: the second and third are gained, the fourth is lost."""


def write_run(name, ranks, items, group=1, **record):
    """A run with the parameters of a published one, except for those in ``record``."""
    folder = Path("results") / name
    folder.mkdir(parents=True)
    run = read_json(Path(CE) / "run.json") | {"run": name, "dataset": name.partition("/")[0], "inputs": {"codes": "1"}}
    run["seed"] = int(name.rpartition("seed")[2])
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
    training = read_json(Path(CE) / "run.json")["training"] | {"lr": 2e-3, "warmup": 0.1}
    write_run(B, SECOND, items, training=training, inputs={"codes": "2"})
    table = pd.DataFrame({"item": range(20), "raw_id": "x", "title": [f"Film {i}" for i in range(20)], "text": ""})
    table.to_parquet(DatasetPaths("toy").items)
    return histories, items


def test_other_decoding_is_a_difference(targets):
    for name, beam in ((A, 20), (B, 40)):
        path = Path("results") / name / "metrics.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "beam": beam, "eos": True}))
    differing = compare(A, B, "test").parameters
    assert differing["decoding.beam"] == [20, 40] and "decoding.eos" not in differing


def test_metrics_intervals_and_parameters_of_the_published_runs():
    found = compare(CE, APAO, "test")
    metrics = [json.loads((Path(run) / "metrics.json").read_text())["test"] for run in (CE, APAO)]
    rows = {row.metric: row for row in found.metrics}
    assert len(rows) == 12
    for name, row in rows.items():
        assert (row.first, row.second) == pytest.approx([one[name] for one in metrics], abs=1e-12)
        assert row.difference == pytest.approx(row.second - row.first) and row.low < row.difference < row.high
        assert 0 < row.p <= row.p_holm <= 1
    for item_level in (False, True):
        # Holm: the smallest of six is multiplied by six.
        smallest = min((row.p, row.p_holm) for row in found.metrics if row.metric.startswith("item_") == item_level)
        assert smallest[1] == pytest.approx(6 * smallest[0])
    # As README has it.
    gain = rows["recall@20"]
    assert (f"{gain.difference:.4f}", f"{gain.low:.4f}", f"{gain.high:.4f}") == ("0.0236", "0.0163", "0.0310")
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
    assert found.parameters == {"training.lr": [5e-4, 2e-3], "training.warmup": [0.01, 0.1]}
    assert found.other_inputs == ["codes"]
    text = as_text(found)
    assert "training.warmup  0.01    0.1" in text and "different versions of codes" in text


def test_a_key_that_is_newer_than_a_run_has_its_default():
    old, new = str(PUBLISHED / "ce/seed42"), str(PUBLISHED / "ce/seed45")
    assert ["dropout" in read_json(Path(run) / "run.json")["backbone"] for run in (old, new)] == [False, True]
    assert compare(old, new, "test").parameters == {"seed": [42, 45]}


def test_metrics_are_those_of_each_users_rank(targets):
    found = compare(A, B, "test")
    ones = pd.DataFrame({"group": 1}, index=range(6))
    first, second = (
        user_metrics(ones.assign(rank=r, items_before=np.maximum(np.array(r) - 1, 0))) for r in (FIRST, SECOND)
    )
    assert {row.metric for row in found.metrics} == {name for name in first if not name.startswith("item_")}
    for row in found.metrics:
        assert row.difference == pytest.approx((second[row.metric] - first[row.metric]).mean())


def test_the_last_place_that_counts_is_the_tenth(targets):
    _, items = targets
    write_run("toy/llama/ce/seed4", [10, 11, 10, 11, 1, 0], items)
    write_run("toy/llama/ce/seed5", [10, 11, 11, 10, 1, 0], items)
    found = compare("toy/llama/ce/seed4", "toy/llama/ce/seed5", "test")
    assert (found.gained, found.lost) == (1, 1)


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


def renamed(run, interactions):
    """A copy of a published run that was trained on other interactions."""
    folder = Path(shutil.copytree(run, "renamed"))
    record = json.loads((folder / "run.json").read_text())
    record["inputs"] = dict.fromkeys(record["inputs"], interactions)
    (folder / "run.json").write_text(json.dumps(record))
    # Its hashes are those of the published run.
    (folder / "provenance.json").unlink()
    return str(folder)


def test_runs_with_other_codes_of_the_same_interactions():
    found = compare(str(PUBLISHED / "apao-pointwise+dropout=0.1/seed42"), SASREC, "test")
    assert found.parameters["dataset"] == ["office", "office-item-id"] and not found.prefix_recall
    # As docs/results.md has it.
    gain = {row.metric: row for row in found.metrics}["recall@10"]
    assert (f"{gain.difference:.4f}", f"{gain.low:.4f}", f"{gain.high:.4f}") == ("0.0175", "0.0094", "0.0257")
    assert not found.exact_users and "exact scoring" not in as_text(found)


EXACT = [1, 11, 0, 4, 6, 10], [1, 3, 12, 5, 11, 1]
"""Exact ranks of the six users in both runs; 0 does not occur in truth and counts as not ranked."""


def test_exact_scoring_by_hand(targets):
    for run, beam, exact in zip((A, B), (FIRST, SECOND), EXACT, strict=True):
        ranks = {"user": list(range(6)), "beam": beam, "exact": exact}
        (Path("results") / run / "exact.json").write_text(json.dumps({"split": "test", "ranks": ranks}))
    found = compare(A, B, "test")
    exact, beam = ({row.metric: row for row in rows} for rows in (found.exact, found.beam))
    assert found.exact_users == 6 and not [name for name in exact if name.startswith("item_")]
    # In the first ten: exactly 4 and 4 of six, by the beam 3 (ranks 1, 4, 10) and 4 (1, 3, 2, 10).
    assert (exact["recall@10"].first, exact["recall@10"].second) == pytest.approx((4 / 6, 4 / 6))
    assert (beam["recall@10"].first, beam["recall@10"].second) == pytest.approx((-1 / 6, 0))
    # Per user, beam minus exact: 0 0 0 0 -1 0, then 0 0 1 -1 0 0; of the differences 0 0 1 -1 1 0 the t is 0.5423.
    assert beam["recall@10"].difference == pytest.approx(1 / 6)
    assert beam["recall@10"].p == pytest.approx(2 * t.sf(0.5423, 5), abs=1e-4)
    gain = beam["ndcg@10"].second - beam["ndcg@10"].first
    dcg = {rank: 1 / math.log2(rank + 1) for rank in range(1, 11)}
    by_beam = (dcg[3] + dcg[2] + dcg[10] + dcg[1]) - (dcg[1] + dcg[4] + dcg[10])
    exactly = (dcg[1] + dcg[3] + dcg[5] + dcg[1]) - (dcg[1] + dcg[4] + dcg[6] + dcg[10])
    assert gain == pytest.approx((by_beam - exactly) / 6)
    text = as_text(found)
    assert "exact scoring, 6 users" in text and "beam search - exact scoring" in text


def test_exact_scoring_of_other_users_is_left_out(targets):
    for run, users in ((A, [0, 1]), (B, [0, 2])):
        ranks = {"user": users, "beam": [1, 1], "exact": [1, 1]}
        (Path("results") / run / "exact.json").write_text(json.dumps({"split": "test", "ranks": ranks}))
    found = compare(A, B, "test")
    assert (found.exact_users, found.exact, found.beam) == (0, [], [])


def test_exact_scoring_of_the_published_runs():
    """As docs/results.md has it."""
    found = compare(CE, APAO, "test")
    exact, beam = ({row.metric: row for row in rows} for rows in (found.exact, found.beam))
    shown = [
        f"{row.first:.4f} {row.second:.4f} {row.difference:+.4f} {row.low:+.4f} {row.high:+.4f} {row.p:.0e}"
        for row in (exact["recall@10"], exact["recall@20"])
    ]
    assert shown == ["0.0473 0.0648 +0.0175 +0.0116 +0.0236 1e-08", "0.0797 0.1023 +0.0226 +0.0157 +0.0296 1e-10"]
    shown = [f"{beam[name].difference:.4f} {beam[name].low:+.4f} {beam[name].high:+.4f}" for name in list(exact)[1:3]]
    assert list(exact)[1:3] == ["recall@10", "recall@20"]
    assert shown == ["0.0024 -0.0010 +0.0059", "0.0010 -0.0055 +0.0073"]
    for way, rows in (("", found.metrics), ("exact_", found.exact)):
        for run, side in ((CE, "first"), (APAO, "second")):
            measured = json.loads((Path(run) / "exact.json").read_text())
            kept = {row.metric: getattr(row, side) for row in rows if not row.metric.startswith("item_")}
            assert kept == pytest.approx({name: measured[f"{way}{name}"] for name in kept})


def test_compare_refuses(targets):
    _, items = targets
    write_run("toy/llama/ce/seed3", FIRST, [0] * 6)
    with pytest.raises(UserError, match="seed3: its ranks are of other users or targets"):
        compare(A, "toy/llama/ce/seed3", "test")
    write_run("other/llama/ce/seed1", FIRST, items)
    with pytest.raises(UserError, match="is of toy, other/llama/ce/seed1 of other; compare runs of one dataset, or"):
        compare(A, "other/llama/ce/seed1", "test")
    with pytest.raises(UserError, match="is of office, office-item-id/sasrec/ce/seed42 of office-item-id"):
        compare(renamed(CE, "1"), SASREC, "test")
    edited = Path(shutil.copytree(CE, "edited"))
    (edited / "metrics.json").write_text((edited / "metrics.json").read_text().replace("0.0", "0.9"))
    with pytest.raises(UserError, match=r"metrics\.json: its content does not match the hash"):
        compare(str(edited), SASREC, "test")
    older = Path("results/older/llama/ce/seed1")
    write_run("older/llama/ce/seed1", FIRST, items)
    (older / "run.json").write_text('{"run": "older/llama/ce/seed1"}')
    with pytest.raises(UserError, match=r"run\.json: backbone: required, but not given"):
        compare(A, "older/llama/ce/seed1", "test")
    with pytest.raises(UserError, match="holds no ranks of the split valid"):
        compare(A, B, "valid")
    with pytest.raises(UserError, match=r"run\.json: not found"):
        compare(A, "toy/llama/ce/seed9", "test")
    with pytest.raises(UserError, match="does not name a run"):
        compare(A, "nonsense", "test")
    (Path("results") / A / "exact.json").write_text('{"split": "test", "ranks": {"user": [0]}, "users": 1}')
    with pytest.raises(UserError, match=r"exact\.json: not the ranks of exact scoring"):
        compare(A, B, "test")


def test_command_prints_a_table_or_json(targets, capsys):
    app(["compare", A, B], standalone_mode=False)
    assert "Among the first 10: 2 users gained by B, 1 lost." in capsys.readouterr().out
    app(["compare", A, B, "--format", "json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out)["gained"] == 2


def test_the_best_new_rank_comes_first_whatever_it_was_before(targets):
    _, items = targets
    write_run("toy/llama/ce/seed6", [0, 12, 0, 30, 1, 2], items)
    write_run("toy/llama/ce/seed7", [5, 3, 0, 3, 1, 2], items)
    found = compare("toy/llama/ce/seed6", "toy/llama/ce/seed7", "test").examples_gained
    assert [(one.user, one.first_rank, one.second_rank) for one in found] == [(3, 30, 3), (1, 12, 3), (0, 0, 5)]
