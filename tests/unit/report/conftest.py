from __future__ import annotations

from pathlib import Path

import pytest
from helpers.results import MadeUp


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MadeUp:
    """An empty project as the working folder."""
    monkeypatch.chdir(tmp_path)
    return MadeUp(tmp_path)
