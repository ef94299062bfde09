"""Fixtures for the tests of the data stages."""

import pytest


@pytest.fixture
def project(tmp_path, monkeypatch):
    """An empty project folder as the working directory: stages write below ``data/``."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder
