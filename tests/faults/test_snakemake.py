"""Snakemake with all its processes killed at random moments, and with a single job killed.

Each try takes half a minute, so they are not run by default; tests/workflow has one of each.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from counting import TIMES
from helpers.content import content, epochs_in, seconds_of_epochs
from helpers.snakemake import Job
from study import TIGER, Study, create

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(TIMES < 3, reason="takes minutes; docs/operations/reliability.md has the command"),
]

TARGET = "results/tables/table1.csv"
SECONDS = 40
"""Approximate duration of the whole workflow."""


def outputs(jobs: Iterable[Job]) -> set[str]:
    return {output for job in jobs for output in job.outputs}


def test_killed_workflow(study: Study, faults, tmp_path: Path) -> None:
    project = create(tmp_path / "project")
    finished: set[str] = set()
    with faults.of("SIGKILL of Snakemake and all its jobs") as row:
        aimed = row.tried + faults.times
        while row.tried < aimed:
            process = project.start_snakemake(TARGET)
            time.sleep(faults.random.uniform(0, SECONDS))
            row.tried += process.kill_all()
            done = process.end()
            if "cannot be locked" in done.output:
                project.snakemake("--unlock")
            row.lost += len(outputs(done.jobs) & finished)
            finished |= outputs(job for job in done.jobs if job.finished)
            if done.status == 0:
                assert_as(study, project.folder)
                finished.clear()
                for folder in ("data", "results"):
                    shutil.rmtree(project.folder / folder)
        # The last kill has left its lock.
        project.snakemake("--unlock")
        row.lost += len(outputs(project.snakemake(TARGET).jobs) & finished)
        assert_as(study, project.folder)


def assert_as(study: Study, project: Path) -> None:
    """The finished files equal those that the commands made without Snakemake."""
    expected = study.expected["report table1"]
    found = content(project)
    assert TARGET in found
    assert found == {name: expected[name] for name in found}


def test_killed_job(study: Study, faults, tmp_path: Path) -> None:
    """A training is killed while Snakemake runs it, as for lack of memory."""
    project = create(tmp_path / "project")
    target = f"results/{TIGER}/model.safetensors"
    run = project.folder / "results" / TIGER
    project.snakemake("data/toy/codes.parquet")
    with faults.of("SIGKILL of a training under Snakemake") as row:
        for _ in range(-(-faults.times // 4)):
            process = project.start_snakemake(target)
            process.wait_for((run / "checkpoint.safetensors").exists)
            (training,) = (one for one in process.children() if "train" in one.cmdline())
            training.kill()
            row.tried += 1
            done = process.end(timeout=60)
            assert done.status == 1
            text = done.output
            assert "Error in rule train" in text and f"logs/{TIGER}/train.log" in text
            assert "rerun the same command" in text
            epochs = epochs_in(run / "checkpoint.safetensors")
            assert epochs and not (project.folder / target).exists()
            project.snakemake(target)
            taken = seconds_of_epochs(run / "history.csv")
            row.lost += sum(old["seconds"] != new for old, new in zip(epochs, taken, strict=False))
            assert_run_as(study, project.folder)
            shutil.rmtree(run)


def assert_run_as(study: Study, project: Path) -> None:
    expected, found = study.expected["train tiger"], content(project)
    assert f"results/{TIGER}/model.safetensors" in found
    assert found == {name: expected[name] for name in found}
