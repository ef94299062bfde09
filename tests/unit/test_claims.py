"""Locks of dead workflows go, those of living ones stay; processes are real and are really killed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from apao.claims import CLAIMS, VARIABLE, release_dead

LOCKS = Path(".snakemake", "locks")
JOB = "import sys; from apao.claims import join; join(); print(flush=True); sys.stdin.read()"
OWNER = f"""
import subprocess, sys
from pathlib import Path
from apao.claims import claim
Path(".snakemake/locks").mkdir(parents=True, exist_ok=True)
lock = Path(".snakemake/locks", sys.argv[1] + ".input.lock")
lock.write_text("results/a.json")
claim([lock])
job = subprocess.Popen([sys.executable, "-c", {JOB!r}])
print(flush=True)
sys.stdin.read()
"""


@pytest.fixture
def owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Starts workflows that hold a lock, each with one job; both read the same pipe."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(VARIABLE, raising=False)
    started = []

    def start(name: str = "0") -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-c", OWNER, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        process.stdout.readline()
        process.stdout.readline()
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def locks() -> list[str]:
    return sorted(path.name for path in LOCKS.iterdir())


def end_job(process: subprocess.Popen) -> None:
    """Close the pipe that the job waits on, and see it end."""
    process.stdin.close()
    process.stdout.read()


def test_a_living_workflow_keeps_its_lock(owner):
    process = owner()
    assert release_dead() == [process.pid]
    assert locks() == ["0.input.lock"]


def test_a_killed_workflow_loses_its_lock_when_its_last_job_has_ended(owner):
    process = owner()
    process.kill()
    process.wait()
    assert release_dead() == [process.pid]
    assert locks() == ["0.input.lock"]
    end_job(process)
    assert release_dead() == []
    assert locks() == []
    assert list(CLAIMS.iterdir()) == []


def test_of_two_workflows_the_living_one_keeps_its_lock(owner):
    dead, living = owner("0"), owner("1")
    dead.kill()
    dead.wait()
    end_job(dead)
    assert release_dead() == [living.pid]
    assert locks() == ["1.input.lock"]


def test_a_later_lock_of_the_same_name_stays(owner):
    process = owner()
    process.kill()
    process.wait()
    end_job(process)
    lock = LOCKS / "0.input.lock"
    lock.rename(LOCKS / "aside")
    lock.write_text("results/b.json")
    assert release_dead() == []
    assert locks() == ["0.input.lock", "aside"]


def test_claims_of_other_machines_and_locks_without_one_stay(owner):
    process = owner()
    process.kill()
    process.wait()
    end_job(process)
    (claim,) = CLAIMS.iterdir()
    claim.rename(CLAIMS / "elsewhere.17")
    assert release_dead() == []
    assert locks() == ["0.input.lock"]
    assert json.loads((CLAIMS / "elsewhere.17").read_text()).keys() == {".snakemake/locks/0.input.lock"}


def test_a_claim_that_was_cut_off_claims_nothing(owner):
    process = owner()
    process.kill()
    process.wait()
    end_job(process)
    (claim,) = CLAIMS.iterdir()
    claim.write_text("{")
    assert release_dead() == []
    assert locks() == ["0.input.lock"]
    assert release_dead() == []


def test_nothing_is_done_where_there_is_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert release_dead() == []
    assert not Path(".snakemake").exists()
