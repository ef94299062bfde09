"""The project's own params.yaml, from which everything registered must be usable."""

import pytest
from helpers.project import SHIPPED

from apao.study.params import Params, load


@pytest.fixture(scope="session")
def params() -> Params:
    return load(SHIPPED)
