"""benchmarks/gpu.sh, on the processor: its runs, and what it brings back of them."""

from __future__ import annotations

import gzip
import shutil
import tarfile

import pytest
from helpers.project import ROOT, make_project, small_params

RUNS = ("toy/tiger/ce/seed1", "toy/tiger/s-dpo/seed2")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A folder with a prepared dataset and the script."""
    objectives = {"ce": {"type": "ce"}, "s-dpo": {"type": "s-dpo", "start": "ce", "negatives": 4}}
    params = small_params({"objectives": objectives})
    params["codes"] = {"toy": {"method": "random", "levels": 3, "clusters": 8, "collisions": "keep"}}
    project = make_project(tmp_path_factory.mktemp("gpu") / "study", params)
    (project.folder / "benchmarks").mkdir()
    shutil.copy(ROOT / "benchmarks" / "gpu.sh", project.folder / "benchmarks")
    for stage in ("download", "preprocess", "codes"):
        project.run("apao", stage, "toy")
    return project


def gpu(study, seconds, out, **variables):
    study.environment = {
        "STEPS": "train",
        "DEVICE": "cpu",
        "RUNS": " ".join(RUNS),
        "ALSO": "",
        "SIDE": "2",
        **variables,
    }
    return study.run("bash", "benchmarks/gpu.sh", str(seconds), str(study.folder / out))


def test_runs_come_back_without_weights_but_those_asked_for(study):
    printed = gpu(study, 200, "out", ALSO="exact", WEIGHTS=f"{RUNS[0]} toy/tiger/ce/seed9")
    with tarfile.open(study.folder / "out" / "toy-tiger.tar.gz") as archive:
        names = set(archive.getnames())
    for run in RUNS:
        assert f"{run} finished: recall@10" in printed
        files = ("run.json", "metrics.json", "ranks.parquet", "history.csv", "exact.json", "train.provenance.json")
        assert {f"results/{run}/{name}" for name in files} <= names
    assert not any(name.endswith(".safetensors") for name in names)
    (weights,) = (study.folder / "out").glob("*.safetensors.gz")
    assert gzip.decompress(weights.read_bytes()) == (study.folder / f"results/{RUNS[0]}/model.safetensors").read_bytes()
    assert "toy/tiger/ce/seed9: its weights are wanted, but it is not among the runs" in printed
    # The second run starts from ce with its seed, which nobody named.
    assert (study.folder / "results/toy/tiger/ce/seed2/model.safetensors").exists()


def test_time_that_is_up_is_said(study):
    assert "no time for 2 more runs" in gpu(study, 1, "late")


def test_a_run_that_fails_is_named_and_the_next_one_made(study):
    printed = gpu(study, 200, "other", RUNS="toy/tiger/cee/seed1 toy/tiger/ce/seed1", SIDE="1")
    assert "toy/tiger/cee/seed1, train: " in printed and "did you mean" in printed
    assert "toy/tiger/ce/seed1 finished" in printed
