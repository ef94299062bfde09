"""The tiny study, run once for all tests of the workflow."""

import shutil
from pathlib import Path

import pytest
from filelock import FileLock
from helpers.project import Project, make_workflow


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Project:
    """The whole study, made by the real Snakemake; a test that changes it uses a copy."""
    base = tmp_path_factory.getbasetemp()
    # Parallel test processes share it; the first one makes it.
    folder = (base if worker_id == "master" else base.parent) / "finished"
    with FileLock(folder.with_suffix(".lock")):
        made = folder / "made"
        if not made.exists():
            folder.mkdir()
            make_workflow(folder).snakemake("all")
            made.touch()
    return Project(folder)


@pytest.fixture
def project(finished: Project, tmp_path: Path) -> Project:
    """A copy of the finished study with its file times, which a test may change."""
    shutil.copytree(finished.folder, tmp_path / "study", symlinks=True)
    return Project(tmp_path / "study")
