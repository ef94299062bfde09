"""What keeping freed memory does, seen from the system: pages that are not faulted in again."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys, torch
from apao.devices import keep_freed_memory
if sys.argv[1] == "keep" and not keep_freed_memory():
    sys.exit("no glibc")
def touch():
    return torch.ones(16, 2**20).sum().item()
touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(40):
    assert touch() == 2**24
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(mode: str) -> int:
    done = subprocess.run([sys.executable, "-c", PROGRAM, mode], capture_output=True, text=True, check=False)
    if "no glibc" in done.stderr:
        pytest.skip("this system has no glibc")
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_kept_memory_is_not_faulted_in_again():
    """Forty times 64 MB are 655,360 pages of 4 KB; kept, the few that the heap drifts over."""
    assert faults("keep") * 3 < faults("default")
