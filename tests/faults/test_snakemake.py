"""The real Snakemake with all its processes killed at random moments, and a job killed under it.

Each try takes half a minute, so the ordinary test run leaves them to tests/workflow, which has one of each.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from content import content, epochs_in, seconds_of_epochs
from counting import TIMES
from study import TIGER, Study, create
from tiny_project import BIN

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(TIMES < 3, reason="takes minutes; docs/reliability.md has the command"),
]

TARGET = "results/tables/table1.csv"
SECONDS = 40
"""About as long as the whole workflow takes."""


def start(folder: Path, *targets: str) -> subprocess.Popen[bytes]:
    with (folder / "output").open("ab") as output:
        return subprocess.Popen(
            [BIN / "snakemake", "--cores", "2", *targets],
            cwd=folder,
            env={**os.environ, "COLUMNS": "1000", "APAO_MIRROR": ""},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def printed(folder: Path) -> str:
    """What was printed since the last call."""
    text = (folder / "output").read_text()
    (folder / "output").unlink()
    return text


def kill_all(process: subprocess.Popen[bytes]) -> bool:
    """Kill Snakemake, its shells and their jobs at once; whether there was something to kill."""
    if process.poll() is not None:
        return False
    parent = psutil.Process(process.pid)
    # Stopped first: nobody reacts to another one's end.
    parent.suspend()
    for one in [parent, *parent.children(recursive=True)]:
        one.kill()
    process.wait()
    return True


def jobs(text: str) -> tuple[set[str], set[str]]:
    """First outputs of the jobs that were begun, and of those that Snakemake said were finished."""
    begun: dict[str, str] = {}
    for block in re.split(r"\n(?=\[|rule |localrule )", text):
        job, output = re.search(r"^    jobid: (\d+)$", block, re.M), re.search(r"^    output: ([^,\n]+)", block, re.M)
        if job and output:
            begun[job[1]] = output[1]
    ended = set(re.findall(r"Finished jobid: (\d+)", text))
    return set(begun.values()), {output for job, output in begun.items() if job in ended}


def test_killed_workflow(study: Study, faults, tmp_path: Path) -> None:
    project = tmp_path / "project"
    create(project)
    finished: set[str] = set()
    with faults.of("SIGKILL of Snakemake and all its jobs") as row:
        aimed = row.tried + faults.times
        while row.tried < aimed:
            process = start(project, TARGET)
            time.sleep(faults.random.uniform(0, SECONDS))
            row.tried += kill_all(process)
            text = printed(project)
            if "cannot be locked" in text:
                subprocess.run([BIN / "snakemake", "--cores", "1", "--unlock"], cwd=project, check=True)
            begun, ended = jobs(text)
            row.lost += len(begun & finished)
            finished |= ended
            if process.returncode == 0:
                assert_as(study, project)
                finished.clear()
                for folder in ("data", "results"):
                    subprocess.run(["rm", "-r", project / folder], check=True)
        process = start(project, TARGET)
        assert process.wait(timeout=300) == 0, printed(project)
        row.lost += len(jobs(printed(project))[0] & finished)
        assert_as(study, project)


def assert_as(study: Study, project: Path) -> None:
    """What there is equals what the commands made without Snakemake."""
    expected = study.expected["report table1"]
    found = content(project)
    assert TARGET in found
    assert found == {name: expected[name] for name in found}


def test_killed_job(study: Study, faults, tmp_path: Path) -> None:
    """A training that dies under Snakemake, as of too little memory."""
    project = tmp_path / "project"
    create(project)
    run = project / "results" / TIGER
    target = str(run.relative_to(project) / "model.safetensors")
    process = start(project, "data/toy/codes.parquet")
    assert process.wait(timeout=300) == 0, printed(project)
    printed(project)
    with faults.of("SIGKILL of a training under Snakemake") as row:
        for _ in range(-(-faults.times // 4)):
            process = start(project, target)
            while not (run / "checkpoint.safetensors").exists():
                assert process.poll() is None, printed(project)
                time.sleep(0.005)
            (training,) = (p for p in psutil.Process(process.pid).children(recursive=True) if "train" in p.cmdline())
            training.send_signal(signal.SIGKILL)
            row.tried += 1
            assert process.wait(timeout=60) == 1
            text = printed(project)
            assert "Error in rule train" in text and f"logs/{TIGER}/train.log" in text
            assert "rerun the same command" in text
            epochs = epochs_in(run / "checkpoint.safetensors")
            assert epochs and not (project / target).exists()
            process = start(project, target)
            assert process.wait(timeout=300) == 0, printed(project)
            printed(project)
            taken = seconds_of_epochs(run / "history.csv")
            row.lost += sum(old["seconds"] != new for old, new in zip(epochs, taken, strict=False))
            assert_run_as(study, project)
            subprocess.run(["rm", "-r", run], check=True)


def assert_run_as(study: Study, project: Path) -> None:
    expected, found = study.expected["train tiger"], content(project)
    assert f"results/{TIGER}/model.safetensors" in found
    assert found == {name: expected[name] for name in found}
