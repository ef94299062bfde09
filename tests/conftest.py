"""Settings for all tests: one thread a process, and no time limits inside hypothesis (machines are shared)."""

import signal
from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("apao", deadline=None)
settings.load_profile("apao")


@pytest.fixture(autouse=True)
def ctrl_c() -> Iterator[None]:
    """A command that ran in this process ignores Ctrl-C from its end on; the tests do not."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)
