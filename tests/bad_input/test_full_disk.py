"""A full disk: a one-line error, earlier files unchanged, and the same command resumes once there is room."""

from pathlib import Path
from shutil import copytree

import pytest
from helpers.content import hashes
from helpers.disks import fill, small_disk
from helpers.processes import Done, run_here
from one_run import CHECKPOINT, MODEL, RUN, RUN_FOLDER, TRAIN


def assert_full(done: Done, file: str) -> None:
    assert done.status == 1, done.output
    assert "Traceback" not in done.output
    assert len(done.errors) == 1, done.output
    assert done.errors[0].startswith(f"error: {file}")
    assert ": no space left on the disk" in done.errors[0] and "rerun the same command to resume" in done.errors[0]


def test_training(interrupted, finished, tmp_path):
    project = Path(copytree(interrupted, tmp_path / "project"))
    size = (project / CHECKPOINT).stat().st_size // 1024
    # The old checkpoint is kept until the new one is complete; there is room for one and a half.
    with small_disk(project / "results", size * 3 // 2) as resize:
        before = hashes(project)
        assert_full(run_here(project, *TRAIN), str(CHECKPOINT))
        assert hashes(project) == before
        resize(10 * size)
        assert run_here(project, *TRAIN).status == 0
        assert (project / MODEL).read_bytes() == (finished / MODEL).read_bytes()


@pytest.mark.parametrize(
    ("folder", "command", "file"),
    [
        ("data", "preprocess toy", "data/toy/interactions.parquet"),
        ("data", "codes toy", "data/toy/codes.parquet"),
        ("results", f"train {RUN}", f"{RUN_FOLDER}/"),
        ("results", f"evaluate {RUN}", f"{RUN_FOLDER}/ranks.parquet"),
        ("results", "baselines toy", "results/toy/baselines/metrics.json"),
    ],
    ids=lambda value: value.split()[0] if " " in value else "",
)
def test_no_room_at_all(finished, tmp_path, folder, command, file):
    project = Path(copytree(finished, tmp_path / "project"))
    with small_disk(project / folder, 1600):
        filler = fill(project / folder / "filler")
        before = hashes(project)
        assert_full(run_here(project, *command.split()), file)
        assert hashes(project) == before
        filler.unlink()
        done = run_here(project, *command.split())
        assert done.status == 0, done.output
