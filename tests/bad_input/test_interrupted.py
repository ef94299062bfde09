"""A training that is stopped at any moment and started again ends as if nothing had happened."""

import random
from pathlib import Path
from shutil import copytree
from signal import SIGINT, SIGKILL, default_int_handler, signal

import pandas as pd
from shop_project import CHECKPOINT, MODEL, RUN, RUN_FOLDER, hashes, stop_after_epochs, succeed

KILLS = 2


def history(project: Path) -> pd.DataFrame:
    """All of it but the time it took, digit by digit."""
    return pd.read_csv(project / RUN_FOLDER / "history.csv", dtype=str).drop(columns="seconds")


def assert_same_training(project: Path, expected: Path) -> None:
    assert (project / MODEL).read_bytes() == (expected / MODEL).read_bytes()
    pd.testing.assert_frame_equal(history(project), history(expected))
    assert not (project / CHECKPOINT).exists()
    assert not list(project.rglob("*.tmp"))


def test_kills_at_random_moments_leave_no_trace(interrupted, finished, tmp_path):
    project = Path(copytree(interrupted, tmp_path / "shop"))
    killed = 0
    for _ in range(KILLS):
        delay = random.uniform(0, 0.5)
        killed += stop_after_epochs(project, SIGKILL, delay=delay).status == -SIGKILL
    assert killed, "every training ended before it could be killed"
    succeed(project, "train", RUN, "--device", "cpu")
    assert_same_training(project, finished)


def test_ctrl_c_says_how_to_go_on(interrupted, finished, tmp_path):
    project = Path(copytree(interrupted, tmp_path / "shop"))
    # A shell that started the tests in the background has them, and all that they start, ignore Ctrl-C.
    before = signal(SIGINT, default_int_handler)
    try:
        done = stop_after_epochs(project, SIGINT)
    finally:
        signal(SIGINT, before)
    assert done.status == 130
    assert done.output.splitlines() == ["stopped; the same command goes on from the last checkpoint or finished file"]
    assert not list(project.rglob("*.tmp"))
    assert not (project / MODEL).exists()


def test_a_second_training_that_is_killed_leaves_the_first(finished, tmp_path):
    project = Path(copytree(finished, tmp_path / "shop"))
    before = hashes(project / RUN_FOLDER)
    done = stop_after_epochs(project, SIGKILL)
    assert done.status == -SIGKILL
    after = hashes(project / RUN_FOLDER)
    assert {name: after.get(name) for name in before} == before
