"""The workflow interrupted and rerun, on other cores or in another checkout, makes the same files."""

import shutil
from pathlib import Path
from signal import SIGINT

import pandas as pd
import pytest
from helpers.processes import ctrl_c_heeded
from helpers.project import Project
from helpers.snakemake import Call

pytestmark = pytest.mark.slow


def test_what_is_made_again_is_the_same(project: Project, finished: Project):
    """Eight cores give the same as two, after the data and two runs were removed."""
    runs = ["toy/tiger/apao-pairwise/seed42", "toy/llama/ce/seed42"]
    shutil.rmtree(project.folder / "data")
    for run in runs:
        shutil.rmtree(project.folder / "results" / run)
    project.snakemake("--cores", "8", *(f"results/{run}/metrics.json" for run in runs))
    names = ("model.safetensors", "ranks.parquet", "metrics.json")
    files = [f"results/{run}/{name}" for run in runs for name in names]
    files += [f"data/toy/{name}" for name in ("interactions.parquet", "embeddings.safetensors", "codes.parquet")]
    for file in files:
        assert (project.folder / file).read_bytes() == (finished.folder / file).read_bytes(), file


def test_checkouts_share_what_is_slow_to_make(finished: Project, tmp_path: Path):
    (tmp_path / "cache").mkdir()
    files = ["data/toy/embeddings.safetensors", "data/toy/codes.parquet"]
    calls = []
    for name in ("one", "two"):
        project = Project(tmp_path / name, {"SNAKEMAKE_OUTPUT_CACHE": str(tmp_path / "cache")})
        shutil.copytree(finished.folder, project.folder, symlinks=True)
        for file in files:
            (project.folder / file).unlink()
        calls.append(project.snakemake("--cache", "--", *files))
        for file in files:
            assert (project.folder / file).read_bytes() == (finished.folder / file).read_bytes()
    assert calls[0].rules == {"embed": 1, "codes": 1}
    assert all(f"Symlinking output file {file} from cache" in calls[1].output for file in files)
    assert "Moving output file" not in calls[1].output


LONG = "toy/tiger/ce+epochs=9999+patience=9999/seed42"


def training(project: Project, run: str) -> Call:
    """A workflow with a training past its first epoch, in a process that dies with it."""
    project.cold = True
    with ctrl_c_heeded():
        process = project.start_snakemake("--cores", "1", f"results/{run}/metrics.json")
    process.wait_for((project.folder / "results" / run / "checkpoint.safetensors").exists)
    return process


def test_killed_workflow_continues(project: Project):
    run = "toy/tiger/ce+epochs=60+patience=60/seed42"
    process = training(project, run)
    process.kill_all()
    folder = project.folder / "results" / run
    assert not (folder / "metrics.json").exists()
    # Snakemake does not know that the owner of its lock is gone, and prints what to do.
    printed = project.snakemake(f"results/{run}/metrics.json", code=1).output
    assert "--unlock" in printed and "Traceback" not in printed
    project.snakemake("--unlock")
    assert project.snakemake(f"results/{run}/metrics.json").rules == {"train": 1, "evaluate": 1}
    assert len(pd.read_csv(folder / "history.csv")) == 60
    assert not (folder / "checkpoint.safetensors").exists()


def test_interrupted_workflow_leaves_no_lock(project: Project):
    process = training(project, LONG)
    # A second workflow in the same checkout prints why it cannot start, and changes nothing.
    printed = project.snakemake(f"results/{LONG}/metrics.json", code=1).output
    assert "Directory cannot be locked" in printed
    assert "Traceback" not in printed
    assert not process.ended
    process.send_all(SIGINT)
    printed = process.end(timeout=120).output
    assert "rerun the same command" in printed
    assert "Traceback" not in printed
    project.snakemake("results/toy/tiger/ce+epochs=1/seed42/metrics.json")
