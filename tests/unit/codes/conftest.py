import json
import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def golden():
    return json.loads((Path(__file__).parents[2] / "golden" / "expected.json").read_text())


@pytest.fixture(scope="session")
def release():
    """Folder ``data`` of the authors' release, with a subfolder per dataset."""
    mirror = os.environ.get("APAO_MIRROR")
    if mirror is None:
        pytest.skip("APAO_MIRROR names no folder with the authors' release")
    return Path(mirror) / "data"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """An empty folder as the working directory: stages write below ``data`` in it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
