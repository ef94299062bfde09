"""Projects in three states: data made, training interrupted, everything finished."""

from pathlib import Path
from shutil import copytree
from signal import SIGKILL

import pytest
from helpers.forks import preload
from helpers.processes import run_here, start
from one_run import CHECKPOINT, EVALUATE, TRAIN, create, stop_after_an_epoch

preload("apao.stages.codes", "pyarrow.parquet", "sklearn.cluster")


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with data and codes, not trained."""
    folder = tmp_path_factory.mktemp("project") / "made"
    create(folder)
    for stage in ("download", "preprocess", "codes"):
        done = run_here(folder, stage, "toy")
        assert done.status == 0, done.output
    return folder


@pytest.fixture(scope="session")
def trainings(made: Path) -> tuple[Path, Path]:
    """A project whose training was not interrupted, and one whose training was killed after its first epoch."""
    whole, killed = (Path(copytree(made, made.with_name(name))) for name in ("whole", "killed"))
    process = start(whole, "apao", *TRAIN)
    stop_after_an_epoch(killed, SIGKILL)
    done = process.end()
    assert done.status == 0, done.output
    return whole, killed


@pytest.fixture(scope="session")
def interrupted(trainings: tuple[Path, Path]) -> Path:
    """A project whose training was killed: it has a checkpoint and no model."""
    assert (trainings[1] / CHECKPOINT).exists()
    return trainings[1]


@pytest.fixture(scope="session")
def finished(trainings: tuple[Path, Path]) -> Path:
    """A project that is trained and evaluated."""
    done = run_here(trainings[0], *EVALUATE)
    assert done.status == 0, done.output
    return trainings[0]
