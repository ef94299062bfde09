"""One training in several processes, started as a user does: same result, and errors of one line."""

from pathlib import Path
from shutil import copytree
from signal import SIGKILL

import numpy as np
import pandas as pd
import pytest
from helpers.content import hashes
from helpers.forks import run_processes
from helpers.processes import Done, run_here, start
from helpers.project import Project
from one_run import CHECKPOINT, MODEL, RUN, RUN_FOLDER, TRAIN
from safetensors.numpy import load_file


@pytest.fixture(scope="module")
def alone(made, tmp_path_factory) -> Path:
    """A project trained by one process."""
    project = Path(copytree(made, tmp_path_factory.mktemp("alone") / "project"))
    done = run_here(project, *TRAIN)
    assert done.status == 0, done.output
    return project


def command_as_one_of(rank: int, folders: list[Path], command: tuple[str, ...]) -> Done:
    return run_here(folders[rank], *command)


def train_in(*folders: Path, command: tuple[str, ...] = TRAIN) -> list[Done]:
    """Run one training with one process in each of the folders."""
    return run_processes(len(folders), command_as_one_of, list(folders), command)


def assert_same_training(project: Path, other: Path) -> None:
    """Compare up to rounding."""
    weights, expected = (load_file(one / MODEL) for one in (project, other))
    assert weights.keys() == expected.keys()
    for name, value in weights.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-4, atol=1e-6, err_msg=name)
    history, known = (pd.read_csv(one / RUN_FOLDER / "history.csv").drop(columns="seconds") for one in (project, other))
    pd.testing.assert_frame_equal(history, known, rtol=1e-6)


def names(project: Path) -> set[str]:
    return {path.name for path in (project / RUN_FOLDER).iterdir()}


def test_only_the_first_process_writes_files_and_messages(made, alone, tmp_path):
    first, second = (Path(copytree(made, tmp_path / name)) for name in ("first", "second"))
    dones = train_in(first, second)
    assert [done.status for done in dones] == [0, 0], dones
    assert f"{RUN}: best of" in dones[0].output and dones[1].output == ""
    assert hashes(second) == hashes(made)
    assert_same_training(first, alone)
    assert {path.name for path in (first / RUN_FOLDER).iterdir()} == {
        path.name for path in (alone / RUN_FOLDER).iterdir()
    }


def test_an_error_common_to_all_processes_is_reported_once(made):
    dones = train_in(made, made, made, command=("train", "toy/tiger/apao-pairwize/seed1"))
    assert [done.status for done in dones] == [1, 1, 1]
    (error,) = [line for done in dones for line in done.output.splitlines()]
    assert error.startswith("error: ") and "'apao-pairwize'" in error


def test_an_error_of_one_process_is_reported_by_that_process(made, tmp_path):
    """The others notice that it has ended and do not wait for it."""
    whole, broken = (Path(copytree(made, tmp_path / name)) for name in ("whole", "broken"))
    codes = broken / "data" / "toy" / "codes.parquet"
    codes.write_bytes(codes.read_bytes()[:-100])
    dones = train_in(whole, broken)
    assert [done.status for done in dones] == [1, 1]
    assert dones[0].output == ""
    (error,) = dones[1].output.splitlines()
    assert error.startswith("error: data/toy/codes.parquet") and "hash" in error
    assert hashes(whole) == hashes(made)


def test_processes_that_would_train_something_else(made, tmp_path):
    """Two folders stand for two machines that do not share one."""
    first, second = (Path(copytree(made, tmp_path / name)) for name in ("first", "second"))
    Project(second).change({"recipes": {"tiny": {"training": {"lr": 1e-3}}}})
    dones = train_in(first, second)
    assert [done.status for done in dones] == [1, 1]
    (error,) = [line for done in dones for line in done.output.splitlines()]
    assert f"{RUN}: its processes see different parameters, inputs or checkpoints" in error
    assert not (first / CHECKPOINT).exists()


def test_a_process_dies_and_the_same_command_resumes(made, alone, tmp_path):
    """The second of two processes started by torchrun is killed once there is a checkpoint."""
    project = Path(copytree(made, tmp_path / "project"))
    # The command in docs/operations/devices.md.
    command = ("torchrun", "--standalone", "--nproc-per-node", "2", "-m", "apao", *TRAIN)
    process = start(project, *command, OMP_NUM_THREADS="1")
    process.wait_for((project / CHECKPOINT).exists)
    (second,) = [one for one in process.children() if one.environ().get("RANK") == "1"]
    second.send_signal(SIGKILL)
    done = process.end()  # which does not wait for a process that hangs
    assert done.status == 1
    (error,) = done.errors
    # Either it noticed that its partner has ended, or torchrun terminated it before it could.
    assert "another process of this training " in error
    assert error.endswith("rerun the same command to resume from the last checkpoint")
    # torchrun reports with its own traceback which process it was.
    assert "Signal 9 (SIGKILL)" in done.output and "apao/cli.py" not in done.output
    assert not (project / MODEL).exists()

    # Resume with three processes.
    dones = train_in(project, project, project)
    assert [done.status for done in dones] == [0, 0, 0], dones
    assert_same_training(project, alone)
