"""A download whose connection breaks, that is killed or whose disk is full resumes where it was."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

import pytest
from broken_site import Site, point_to, site
from helpers.disks import small_disk
from helpers.forks import run_forked
from study import create

pytestmark = pytest.mark.faults

NAMES = [f"Office.{kind}.json" for kind in ("inter", "index.rq-kmeans", "item")]
BYTES = 400_000


@pytest.fixture
def project(tmp_path: Path) -> Path:
    project = create(tmp_path / "project")
    office = {"source": "release", "name": "Office", "recipe": "tiny", "codes": "toy"}
    project.change({"datasets": {"office": office}})
    return project.folder


def served(faults) -> dict[str, bytes]:
    return {f"data/Office/{name}": faults.random.randbytes(BYTES) for name in NAMES}


def prepared(server: Site):
    known = {path: (len(body), hashlib.sha256(body).hexdigest()) for path, body in server.files.items()}
    return functools.partial(point_to, server.address, known)


def assert_downloaded(project: Path, files: dict[str, bytes]) -> None:
    raw = project / "data/office/raw"
    for path, body in files.items():
        assert (raw / Path(path).name).read_bytes() == body
    assert not list(raw.glob("*.part")) and not list(raw.glob(".*"))


def clear(project: Path) -> None:
    for path in (project / "data/office/raw").iterdir():
        path.unlink()


def test_network_gone(project: Path, faults) -> None:
    with faults.of("network gone in mid-download") as row:
        for _ in range(faults.times):
            with site(served(faults)) as server:
                cuts = [faults.random.randint(1, BYTES // 3) for _ in range(faults.random.randint(1, 8))]
                server.cuts = list(cuts)
                while (done := run_forked(project, "download", "office", prepare=prepared(server))).status != 0:
                    (line,) = done.errors
                    assert "connection ended after" in line and "are kept for the next attempt" in line
                row.tried += len(cuts) - len(server.cuts)
                assert_downloaded(project, server.files)
                # Each byte was transferred once.
                row.lost += server.sent - len(NAMES) * BYTES
                assert len(server.from_start) == len(NAMES)
            clear(project)


def test_killed_download(project: Path, faults) -> None:
    with faults.of("SIGKILL in `apao download` from the network") as row:
        for _ in range(faults.times):
            with site(served(faults)) as server:
                server.seconds_a_block = 0.005
                seconds = len(NAMES) * BYTES / 10_000 * 0.005
                for _ in range(faults.random.randint(1, 3)):
                    done = run_forked(
                        project,
                        "download",
                        "office",
                        prepare=prepared(server),
                        after=faults.random.uniform(0.05, seconds),
                    )
                    row.tried += done.killed
                server.seconds_a_block = 0
                assert run_forked(project, "download", "office", prepare=prepared(server)).status == 0
                assert_downloaded(project, server.files)
            clear(project)


def test_full_disk(project: Path, faults) -> None:
    with faults.of("disk full in a download") as row:
        (project / "data").mkdir()
        for _ in range(faults.times):
            with site(served(faults)) as server:
                kibibytes = faults.random.randint(8, len(NAMES) * BYTES // 1024 - 8)
                with small_disk(project / "data", kibibytes) as resize:
                    row.tried += 1
                    done = run_forked(project, "download", "office", prepare=prepared(server))
                    assert done.status == 1
                    (line,) = done.errors
                    assert line.startswith("error: data/office/raw.part/") and "no space left on the disk" in line
                    resize(2 * len(NAMES) * BYTES // 1024)
                    assert run_forked(project, "download", "office", prepare=prepared(server)).status == 0
                    assert_downloaded(project, server.files)
                    assert len(server.from_start) <= len(NAMES) + 1
