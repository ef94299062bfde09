"""A training that is stopped at any moment and started again ends as if nothing had happened."""

import random
from pathlib import Path
from shutil import copytree
from signal import SIGINT, SIGKILL, default_int_handler, signal

import pandas as pd
from shop_project import CHECKPOINT, MODEL, RUN, RUN_FOLDER, apao, stop_after_epochs


def history(project: Path) -> pd.DataFrame:
    """All of it but the time it took, digit by digit."""
    return pd.read_csv(project / RUN_FOLDER / "history.csv", dtype=str).drop(columns="seconds")


def test_a_training_goes_on_bit_by_bit(interrupted, finished, tmp_path):
    project = Path(copytree(interrupted, tmp_path / "shop"))  # killed once already

    done = stop_after_epochs(project, SIGKILL, delay=random.uniform(0, 0.5))
    assert done.status == -SIGKILL, done.output

    # A shell that started the tests in the background has them, and all that they start, ignore Ctrl-C.
    before = signal(SIGINT, default_int_handler)
    try:
        done = stop_after_epochs(project, SIGINT)
    finally:
        signal(SIGINT, before)
    assert done.status == 130
    line = "interrupted; rerun the same command to resume from the last checkpoint or finished file"
    assert done.output.splitlines() == [line]
    assert not (project / MODEL).exists()

    done = apao(project, "train", RUN, "--device", "cpu")
    assert done.status == 0, done.output
    assert (project / MODEL).read_bytes() == (finished / MODEL).read_bytes()
    pd.testing.assert_frame_equal(history(project), history(finished))
    assert not (project / CHECKPOINT).exists()
    assert not list(project.rglob("*.tmp"))
