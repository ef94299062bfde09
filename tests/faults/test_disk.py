"""A full disk or a read-only folder: a one-line error, no damage, and the same command resumes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from helpers.content import assert_whole, content
from helpers.disks import fill, read_only, small_disk
from helpers.forks import finish, run_forked
from study import ONE_OF_EACH_COMMAND, STAGES, TIGER, Study

pytestmark = pytest.mark.faults


def kibibytes(new: Path, old: Path) -> int:
    """Space for the files of ``new`` that are not in ``old``, on a disk with pages of 4 KiB."""
    files = [path for path in new.rglob("*") if path.is_file() and not (old / path.relative_to(new)).exists()]
    return sum(4 * -(-path.stat().st_size // 4096) for path in files)


def top(stage: str) -> str:
    """The folder that a stage writes to."""
    arguments = STAGES[stage]
    if arguments[0] == "report":
        return "figures" if arguments[1].startswith("figure") else "results"
    return "data" if arguments[0] in ("download", "preprocess", "embed", "codes") else "results"


@pytest.mark.parametrize("stage", ["preprocess", "embed", "codes", "train tiger", "evaluate tiger", "report table1"])
def test_full_disk(stage: str, study: Study, faults, tmp_path: Path) -> None:
    """The disk fills up at random moments."""
    with faults.of(f"disk full in `apao {STAGES[stage][0]}`") as row:
        for _ in range(faults.times):
            project = Path(shutil.copytree(study.before[stage], tmp_path / "project", symlinks=True))
            disk = project / top(stage)
            disk.mkdir(exist_ok=True)
            needed = kibibytes(study.after[stage] / top(stage), study.before[stage] / top(stage))
            with small_disk(disk, 8192):
                filler = fill(disk / "filler")
                # Space for a part of the outputs, from none to all but the last page.
                os.truncate(filler, filler.stat().st_size - 1024 * faults.random.randrange(0, needed, 4))
                row.tried += 1
                done = run_forked(project, *STAGES[stage])
                if done.status == 0:
                    # The outputs had space, and only the tracker, which writes after them, had not.
                    assert "tracker tensorboard failed and is left out" in done.output, done.output
                else:
                    assert done.status == 1, done.output
                    (line,) = done.errors
                    assert line.startswith(f"error: {top(stage)}/") and "no space left on the disk" in line, line
                assert "Traceback" not in done.output
                filler.unlink()
                assert_whole(project, content(study.before[stage]), study.expected[stage])
                finish(project, *STAGES[stage])
                assert content(project) == study.expected[stage]
            shutil.rmtree(project)


@pytest.mark.parametrize("stage", [stage for stage in ONE_OF_EACH_COMMAND if stage != "download"])
def test_read_only(stage: str, study: Study, faults, tmp_path: Path) -> None:
    project = Path(shutil.copytree(study.finished, tmp_path / "project", symlinks=True))
    before = content(project)
    with faults.of("read-only folder") as row:
        row.tried += 1
        with read_only(project / top(stage)):
            done = run_forked(project, *STAGES[stage])
        assert done.status == 1
        (line,) = done.errors
        assert line.startswith(f"error: {top(stage)}/") and "cannot be written (Read-only file system)" in line, line
        assert "Traceback" not in done.output
        assert content(project) == before


def test_read_only_with_a_checkpoint(study: Study, faults, tmp_path: Path) -> None:
    stage = "train tiger"
    project = Path(shutil.copytree(study.before[stage], tmp_path / "project", symlinks=True))
    checkpoint = project / "results" / TIGER / "checkpoint.safetensors"
    run_forked(project, *STAGES[stage], after=0, seen=checkpoint.exists)
    with faults.of("read-only folder") as row:
        row.tried += 1
        kept = checkpoint.read_bytes()
        with read_only(project / "results"):
            (line,) = run_forked(project, *STAGES[stage]).errors
        assert "cannot be written (Read-only file system)" in line
        assert checkpoint.read_bytes() == kept
        finish(project, *STAGES[stage])
        assert content(project) == study.expected[stage]
