"""The tiny study, run once for all tests of the workflow."""

import pytest
from tiny_project import Project, make_project


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The whole study by the real Snakemake; a test that changes it takes a copy."""
    project = make_project(tmp_path_factory.mktemp("study"))
    project.snakemake("all")
    return project
