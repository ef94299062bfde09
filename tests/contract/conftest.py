"""The project's own params.yaml, from which everything registered must be usable."""

from pathlib import Path

import pytest

from apao.study.params import Params, load


@pytest.fixture(scope="session")
def params() -> Params:
    return load(Path(__file__).parents[2] / "params.yaml")
