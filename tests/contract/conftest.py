"""The project's own params.yaml, from which everything registered must be usable."""

import pytest
from helpers.project import SHIPPED

from apao.objectives.base import OBJECTIVES
from apao.study.params import Params, load, schema


@pytest.fixture(scope="session")
def params() -> Params:
    return load(SHIPPED)


@pytest.fixture(scope="session")
def definitions() -> dict:
    """The JSON schema of params.yaml; made once, since it takes seconds."""
    return schema()


@pytest.fixture(params=list(OBJECTIVES))
def objective(request, params):
    """The objective's entry in params.yaml, with few negatives."""
    found = params.objectives[request.param].model_dump() | {"tuned": {}}
    return found | ({"negatives": 5} if "negatives" in found else {})
