"""The effect of keeping freed memory: pages are not faulted in again."""

import resource

import pytest
import torch
from helpers.forks import in_fork

from apao.devices import keep_freed_memory


def faults(keep: bool) -> int | None:
    """Page faults from using 64 MB forty times; None on a system without glibc."""
    if keep and not keep_freed_memory():
        return None
    touch()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(40):
        touch()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def touch() -> None:
    assert torch.ones(16, 2**20).sum().item() == 2**24


def test_kept_memory_is_not_faulted_in_again():
    """Forty times 64 MB are 655,360 pages of 4 KB; with kept memory there are few page faults."""
    kept, default = in_fork(faults, True), in_fork(faults, False)
    if kept is None:
        pytest.skip("this system has no glibc")
    assert kept * 3 < default
