"""One training by several processes, as a user starts it: same result, one line when something is wrong."""

import os
import subprocess
import sys
import time
from pathlib import Path
from shutil import copytree
from signal import SIGKILL

import numpy as np
import pandas as pd
import psutil
import pytest
from processes import run_processes
from safetensors.numpy import load_file
from shop_project import SECONDS, Done, end, entry_point, hashes, params, stamp, write_params

RUN = "shop/tiger/apao-pairwise+weights=eq17/seed3"
TRAIN = ("train", RUN, "--device", "cpu")
FOLDER = Path("results", RUN)


@pytest.fixture(scope="module")
def alone(made, tmp_path_factory) -> Path:
    """Trained by one process."""
    project = Path(copytree(made, tmp_path_factory.mktemp("alone") / "shop"))
    done = entry_point(project, *TRAIN)
    assert done.status == 0, done.output
    return project


def command_as_one_of(rank: int, folders: list[Path], command: tuple[str, ...]) -> Done:
    return entry_point(folders[rank], *command)


def train_in(*folders: Path, command: tuple[str, ...] = TRAIN) -> list[Done]:
    """A process in each of the folders, all of one training."""
    return run_processes(len(folders), command_as_one_of, list(folders), command)


def assert_same_training(project: Path, other: Path) -> None:
    """To rounding."""
    weights, expected = (load_file(one / FOLDER / "model.safetensors") for one in (project, other))
    assert weights.keys() == expected.keys()
    for name, value in weights.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-4, atol=1e-6, err_msg=name)
    history, known = (pd.read_csv(one / FOLDER / "history.csv").drop(columns="seconds") for one in (project, other))
    pd.testing.assert_frame_equal(history, known, rtol=1e-6)


def test_only_the_first_process_writes_and_speaks(made, alone, tmp_path):
    first, second = (Path(copytree(made, tmp_path / name)) for name in ("first", "second"))
    dones = train_in(first, second)
    assert [done.status for done in dones] == [0, 0], dones
    assert f"{RUN}: best of" in dones[0].output and dones[1].output == ""
    assert hashes(second) == hashes(made)
    assert_same_training(first, alone)
    assert {path.name for path in (first / FOLDER).iterdir()} == {path.name for path in (alone / FOLDER).iterdir()}


def test_a_mistake_that_all_meet_is_told_once(made):
    dones = train_in(made, made, made, command=("train", "shop/tiger/apao-pairwize/seed1"))
    assert [done.status for done in dones] == [1, 1, 1]
    (error,) = [line for done in dones for line in done.output.splitlines()]
    assert error.startswith("error: ") and "'apao-pairwize'" in error


def test_a_mistake_that_one_meets_is_told_by_that_one(made, tmp_path):
    """The others notice that it has gone and do not wait."""
    whole, broken = (Path(copytree(made, tmp_path / name)) for name in ("whole", "broken"))
    codes = broken / "data" / "shop" / "codes.parquet"
    codes.write_bytes(codes.read_bytes()[:-100])
    dones = train_in(whole, broken)
    assert [done.status for done in dones] == [1, 1]
    assert dones[0].output == ""
    (error,) = dones[1].output.splitlines()
    assert error.startswith("error: data/shop/codes.parquet") and "hash" in error
    assert hashes(whole) == hashes(made)


def test_processes_that_would_train_something_else(made, tmp_path):
    """As on two machines that do not share the folder."""
    first, second = (Path(copytree(made, tmp_path / name)) for name in ("first", "second"))
    values = params()
    values["recipes"]["tiny"]["training"]["lr"] /= 2
    write_params(second, values)
    dones = train_in(first, second)
    assert [done.status for done in dones] == [1, 1]
    (error,) = [line for done in dones for line in done.output.splitlines()]
    assert f"{RUN}: its processes see different parameters, inputs or checkpoints" in error
    assert not (first / FOLDER / "checkpoint.safetensors").exists()


def torchrun(project: Path) -> subprocess.Popen[str]:
    """The command of docs/several-devices.md."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("APAO_")}
    command = Path(sys.executable).with_name("torchrun")
    return subprocess.Popen(
        [command, "--standalone", "--nproc-per-node", "2", "-m", "apao", *TRAIN],
        cwd=project,
        env={**kept, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_process_dies_and_the_same_command_goes_on(made, alone, tmp_path):
    """SIGKILL, once there is a checkpoint, to the second of two processes that torchrun started."""
    project = Path(copytree(made, tmp_path / "shop"))
    process = torchrun(project)
    begun = time.monotonic()
    while stamp(project / FOLDER / "checkpoint.safetensors") is None and process.poll() is None:
        assert time.monotonic() - begun < SECONDS
        time.sleep(0.01)
    (second,) = [one for one in psutil.Process(process.pid).children() if one.environ().get("RANK") == "1"]
    second.send_signal(SIGKILL)
    killed = time.monotonic()
    done = end(process)
    assert time.monotonic() - killed < 20
    assert done.status == 1
    (error,) = done.errors
    assert "another process of this training has ended" in error
    assert error.endswith("rerun the same command to resume from the last checkpoint")
    # torchrun tells, with a traceback of its own, which process it was.
    assert "Signal 9 (SIGKILL)" in done.output and "apao/cli.py" not in done.output
    assert not (project / FOLDER / "model.safetensors").exists()

    # Three of them this time.
    dones = train_in(project, project, project)
    assert [done.status for done in dones] == [0, 0, 0], dones
    assert_same_training(project, alone)
