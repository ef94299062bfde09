"""Values that the authors' classes computed on a small catalogue, recomputed by the code that training uses.

``expected.json`` has 40 users, 400 items with 67 tokens, 12 training examples with 20 negatives each
and the beams of 8 test users; the weights are random, in evaluation mode.
"""

import json
from pathlib import Path

import pytest

from apao.verify.compare import verify

FOLDER = Path(__file__).parent
TOLERANCE = 1e-4
VALUES = json.loads((FOLDER / "expected.json").read_text())["backbones"]


def names():
    """Name of every number of the file, as in the report."""
    yield from (("-", "vocabulary"), ("-", "valid_prefixes"))
    for way, key in (("tiger", "t5"), ("llama", "llama"), ("llama, packed", "llama")):
        values = VALUES[key]
        yield from ((way, f"ce {field}") for field in values["ce"])
        for kind, parameter in (("msl", "tau"), ("apao-pointwise", "eta"), ("apao-pairwise", "eta")):
            for strength, fields in values[kind].items():
                yield from ((way, f"{kind} {parameter}={strength} {field}") for field in fields)
    yield from ((way, f"beam {field}") for way in ("tiger", "llama") for field in ("codes", "scores"))


@pytest.fixture(scope="module")
def found():
    return {(each.backbone, each.name): each for each in verify(FOLDER, TOLERANCE)}


def test_nothing_else_is_reported(found):
    assert len(set(names())) == 99
    assert set(found) == set(names())


@pytest.mark.parametrize("name", list(names()), ids="-".join)
def test_agrees(found, name):
    assert found[name].difference <= TOLERANCE and found[name].agrees, found[name].remark
