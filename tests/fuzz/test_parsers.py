"""Every parser reads noise, damaged and malicious files to a valid value or one clear error."""

import pytest
from hostile import fuzzed, hostile, meet
from hypothesis import given
from hypothesis import strategies as st
from targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_valid_files_are_read(name):
    target = TARGETS[name]
    assert [meet(target, target.pack(seed)) for seed in target.seeds] == [None] * len(target.seeds)


@pytest.mark.parametrize("name", TARGETS)
@fuzzed(12)
@given(data=st.data())
def test_hostile_files(name, data):
    meet(TARGETS[name], data.draw(hostile(TARGETS[name])))
