"""The project with its data made, with its training interrupted, and with everything finished."""

from contextlib import chdir
from pathlib import Path
from shutil import copytree
from signal import SIGKILL

import pytest
from shop_project import CHECKPOINT, RUN, create, end, start, stop_after_epochs

from apao.cli import app


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data and codes."""
    folder = tmp_path_factory.mktemp("shop") / "made"
    create(folder)
    with chdir(folder):
        for stage in ("download", "preprocess", "codes"):
            app([stage, "shop"], standalone_mode=False)
    return folder


@pytest.fixture(scope="session")
def trainings(made: Path) -> tuple[Path, Path]:
    """A project whose training was never disturbed, and one whose training was killed after its first epoch."""
    whole, killed = (Path(copytree(made, made.with_name(name))) for name in ("whole", "killed"))
    process = start(whole, "train", RUN, "--device", "cpu")
    stop_after_epochs(killed, SIGKILL)
    done = end(process)
    assert done.status == 0, done.output
    return whole, killed


@pytest.fixture(scope="session")
def interrupted(trainings: tuple[Path, Path]) -> Path:
    """Killed, with a checkpoint and no model."""
    assert (trainings[1] / CHECKPOINT).exists()
    return trainings[1]


@pytest.fixture(scope="session")
def finished(trainings: tuple[Path, Path]) -> Path:
    """Trained and evaluated."""
    with chdir(trainings[0]):
        app(["evaluate", RUN, "--device", "cpu"], standalone_mode=False)
    return trainings[0]
