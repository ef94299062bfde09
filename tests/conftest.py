"""Settings for all tests: one thread per process, and no time limits inside hypothesis (machines are shared)."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("apao", deadline=None)
settings.load_profile("apao")

QUICK = ("unit", "contract")
"""Folders whose tests `pytest -m quick` runs, except those marked slow."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark quick tests, before pytest selects by marks, and put long files first: short ones then fill the end."""
    for item in items:
        if _folder(item) in QUICK and item.get_closest_marker("slow") is None:
            item.add_marker("quick")
    items.sort(key=lambda item: _folder(item) != "workflow")


def _folder(item: pytest.Item) -> str:
    return item.path.relative_to(Path(__file__).parent).parts[0]


@pytest.fixture(autouse=True)
def ctrl_c() -> Iterator[None]:
    """Restore the handler of Ctrl-C, which a command that ran in this process has set to ignore."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)
