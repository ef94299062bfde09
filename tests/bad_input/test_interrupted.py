"""A training that is interrupted and resumed gives the same result as one that is not interrupted."""

from pathlib import Path
from shutil import copytree
from signal import SIGINT, SIGKILL

import pandas as pd
from helpers.processes import ctrl_c_heeded, run
from one_run import CHECKPOINT, MODEL, RUN_FOLDER, TRAIN, stop_after_an_epoch


def history(project: Path) -> pd.DataFrame:
    """The training history without times, as text."""
    return pd.read_csv(project / RUN_FOLDER / "history.csv", dtype=str).drop(columns="seconds")


def test_a_resumed_training_is_bit_identical(interrupted, finished, tmp_path):
    project = Path(copytree(interrupted, tmp_path / "project"))  # killed once already

    done = stop_after_an_epoch(project, SIGKILL, delay=0.2)  # within the next epoch
    assert done.status == -SIGKILL, done.output

    with ctrl_c_heeded():
        done = stop_after_an_epoch(project, SIGINT)
    assert done.status == 130
    line = "interrupted; rerun the same command to resume from the last checkpoint or finished file"
    assert done.output.splitlines() == [line]
    assert not (project / MODEL).exists()

    done = run(project, "apao", *TRAIN)
    assert done.status == 0, done.output
    assert (project / MODEL).read_bytes() == (finished / MODEL).read_bytes()
    pd.testing.assert_frame_equal(history(project), history(finished))
    assert not (project / CHECKPOINT).exists()
    assert not list(project.rglob("*.tmp"))
