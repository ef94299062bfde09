"""The project's own params.yaml: whatever is registered must be usable from it."""

from pathlib import Path

import pytest

from apao.study.params import Params, load


@pytest.fixture(scope="session")
def params() -> Params:
    return load(Path(__file__).parents[2] / "params.yaml")
