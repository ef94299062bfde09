"""The project's own params.yaml: whatever is registered must be usable from it."""

import pytest
from helpers.project import SHIPPED

from apao.study.params import Params, load


@pytest.fixture(scope="session")
def params() -> Params:
    return load(SHIPPED)
