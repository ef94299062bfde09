"""Two objectives over their seeds: beside ``apao compare`` of single pairs, the files themselves, and scipy."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from helpers.project import ROOT
from scipy.stats import ttest_1samp
from typer.testing import CliRunner

from apao.cli import app
from apao.errors import UserError
from apao.files import read_json
from apao.stages.compare import compare
from apao.stages.compare_seeds import compare_seeds, seed_folders
from apao.stages.compare_text import seeds_as_text

PUBLISHED = ROOT / "results" / "published" / "office" / "llama"
CE, APAO = str(PUBLISHED / "ce"), str(PUBLISHED / "apao-pointwise")
SEEDS = [42, 43, 44, 45, 46]


@pytest.fixture(scope="module")
def found():
    return compare_seeds(CE, APAO, "test")


def test_each_difference_is_that_of_the_pair(found):
    assert (found.first, found.second, found.seeds, found.seeds_of_one) == (
        "office/llama/ce",
        "office/llama/apao-pointwise",
        SEEDS,
        {},
    )
    pair = compare(f"{CE}/seed44", f"{APAO}/seed44", "test")
    assert [row.metric for row in found.metrics] == [row.metric for row in pair.metrics]
    assert found.parameters == pair.parameters and found.other_inputs == pair.other_inputs == []
    for ours, theirs in ((found.metrics, pair.metrics), (found.exact, pair.exact), (found.beam, pair.beam)):
        of_seed = {row.metric: row.by_seed[-1 if ours is not found.metrics else SEEDS.index(44)] for row in ours}
        for row in theirs:
            assert of_seed[row.metric] == pytest.approx(row.difference)


def test_means_intervals_and_tests_over_the_seeds(found):
    recall = [
        [read_json(Path(folder) / f"seed{seed}" / "metrics.json")["test"]["recall@10"] for seed in SEEDS]
        for folder in (CE, APAO)
    ]
    (row,) = (row for row in found.metrics if row.metric == "recall@10")
    gains = [after - before for before, after in zip(*recall, strict=True)]
    assert row.by_seed == pytest.approx(gains) and row.difference == pytest.approx(sum(gains) / 5)
    assert (row.first, row.second) == pytest.approx(tuple(sum(values) / 5 for values in recall))
    test = ttest_1samp(gains, 0)
    assert row.p_seeds == pytest.approx(test.pvalue)
    # The spread over these seeds is wider than that over the users.
    assert (row.low, row.high) == pytest.approx(tuple(test.confidence_interval()))


def test_of_two_seeds_the_interval_is_over_the_users(found):
    assert found.exact_seeds == [42, 44] and found.exact_users == 4905
    for row in (*found.exact, *found.beam):
        assert row.p_seeds is None and len(row.by_seed) == 2
        assert row.low <= row.difference <= row.high


def test_lost_and_won_are_those_of_the_files_and_make_up_the_difference(found):
    rows = {row.metric: row for row in found.beam}
    for k in (5, 10, 20):
        for what in ("lost", "won"):
            files = [read_json(Path(CE) / f"seed{seed}" / "exact.json")[f"{what}@{k}"] for seed in (42, 44)]
            assert rows[f"{what}@{k}"].first == pytest.approx(sum(files) / 2)
        assert rows[f"recall@{k}"].difference == pytest.approx(
            rows[f"won@{k}"].difference - rows[f"lost@{k}"].difference
        )


def test_seeds_of_one_are_left_out_and_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(PUBLISHED / "ce" / "seed43", "results/office/llama/ce/seed43")
    shutil.copytree(PUBLISHED / "ce" / "seed44", "results/office/llama/ce/seed44")
    result = CliRunner().invoke(app, ["compare", "office/llama/ce", APAO])
    assert result.exit_code == 0 and "means over the seeds 43, 44\n" in result.stdout
    assert "Left out: 42, 45, 46 of office/llama/apao-pointwise, which the other lacks." in result.stdout
    assert "exact scoring" in result.stdout and "seed 43  seed 44\n" in result.stdout
    printed = json.loads(CliRunner().invoke(app, ["compare", "office/llama/ce", APAO, "--format", "json"]).stdout)
    assert printed["seeds"] == [43, 44] and printed["seeds_of_one"] == {"office/llama/apao-pointwise": [42, 45, 46]}


def test_seeds_of_other_parameters_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seed in (42, 43, 44):
        shutil.copytree(PUBLISHED / "ce" / f"seed{seed}", f"results/office/llama/ce/seed{seed}")
    edited = Path("results/office/llama/ce/seed43")
    (edited / "provenance.json").unlink()  # its hashes are those of the published run
    record = read_json(edited / "run.json")
    record["training"]["lr"] = 0.5
    (edited / "run.json").write_text(json.dumps(record))
    found = compare_seeds("office/llama/ce", APAO, "test")
    assert found.other_parameters == [43] and "training.lr" not in found.parameters
    assert "Other parameters differ with the seeds 43; compare these runs singly." in seeds_as_text(found)


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """The folders of both objectives with the seeds 42 and 44, without the record that has the files' hashes."""
    monkeypatch.chdir(tmp_path)
    for name in ("ce", "apao-pointwise"):
        for seed in (42, 44):
            ignored = shutil.ignore_patterns("provenance.json")
            shutil.copytree(PUBLISHED / name / f"seed{seed}", f"results/office/llama/{name}/seed{seed}", ignore=ignored)
    return [Path("results/office/llama", name) for name in ("ce", "apao-pointwise")]


def edit(path, change):
    value = read_json(path)
    change(value)
    path.write_text(json.dumps(value))


def without_a_user(values):
    values["ranks"] = {name: column[1:] for name, column in values["ranks"].items()}


@pytest.mark.parametrize("other_users", [True, False])
def test_pairs_that_were_not_both_scored_exactly_for_the_same_users_are_left_out(copied, other_users):
    if other_users:
        for folder in copied:
            edit(folder / "seed44/exact.json", without_a_user)
    else:
        (copied[1] / "seed44/exact.json").unlink()
    assert compare_seeds(*map(str, copied), "test").exact_seeds == [42]


def test_other_inputs_of_a_later_pair_are_named(copied):
    edit(copied[0] / "seed44/run.json", lambda record: record["inputs"].update({"data/office/codes.parquet": "0" * 64}))
    assert compare_seeds(*map(str, copied), "test").other_inputs == ["data/office/codes.parquet"]


def test_all_pairs_are_of_the_same_users(copied):
    for folder in copied:
        path = folder / "seed44/ranks.parquet"
        ranks = pd.read_parquet(path)
        ranks[ranks["user"] != 0].to_parquet(path)
    with pytest.raises(UserError, match=r"ce/seed44: its ranks are of other users or targets"):
        compare_seeds(*map(str, copied), "test")


def test_only_folders_of_runs_are_seeds(tmp_path):
    for name in ("seed10", "seed2", "seed4-before", "seedling"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").touch()
    (tmp_path / "seed3").mkdir()
    assert list(seed_folders(str(tmp_path)).items()) == [(2, tmp_path / "seed2"), (10, tmp_path / "seed10")]


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (f"{APAO}/seed42", "the first has 42, 43, 44, 45, 46, the second none"),
        (str(PUBLISHED / "absent"), "no seed with which both"),
        (str(PUBLISHED.parents[1] / "beauty" / "llama" / "ce"), "is of office, beauty/llama/ce/seed42 of beauty"),
    ],
)
def test_what_cannot_be_compared(second, message):
    with pytest.raises(UserError, match=message):
        compare_seeds(CE, second, "test")
