"""Whose Snakemake's locks are, so that those of a killed workflow can be told from those of a living one.

Snakemake's lock is a file that outlives a hard kill, and nothing in it says whose it is. Beside it each
workflow leaves a claim: a file that names its locks and that its processes, the jobs among them, hold
under a lock of the kernel's (flock), which ends with the last of them. The locks that a claim names are
removed once nobody holds the claim. Where that cannot be known (another machine's claim, a file system
without flock, no claim because the kill came before it) they stay, and Snakemake says what to do.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable
from pathlib import Path

CLAIMS = Path(".snakemake") / "claims"
VARIABLE = "APAO_CLAIM"
"""Environment variable that tells a workflow's jobs its claim."""

_held: list[int] = []
"""Open until the process ends, however it ends."""


def claim(locks: Iterable[Path]) -> None:
    """Claim ``locks`` for this process and the jobs it starts."""
    mine = (CLAIMS / f"{platform.node()}.{os.getpid()}").absolute()
    unnamed = mine.with_name(f"{mine.name}.tmp")
    try:
        mine.parent.mkdir(parents=True, exist_ok=True)
        unnamed.write_text(json.dumps({str(path): _identity(path) for path in locks}), encoding="utf-8")
        if _hold(unnamed):
            # Under its own name only now: nobody finds it unheld.
            unnamed.replace(mine)
            os.environ[VARIABLE] = str(mine)
    except OSError:
        return  # the locks of a full or read-only disk are left to Snakemake


def join() -> None:
    """Hold the claim of the workflow that started this process, if one did, so that its locks outlast it no less."""
    if VARIABLE in os.environ:
        _hold(Path(os.environ[VARIABLE]))


def release_dead() -> list[int]:
    """Remove the locks of this machine's workflows that ended without doing so.

    Returns:
        The Snakemake processes of the workflows whose claims are still held, by them or by their jobs.
    """
    living = []
    for path in sorted(CLAIMS.absolute().glob("*.*")):
        machine, _, process = path.name.rpartition(".")
        mine = str(path) == os.environ.get(VARIABLE)
        if machine == platform.node() and process.isdigit() and not mine and not _released(path):
            living.append(int(process))
    return living


def _hold(path: Path) -> bool:
    if os.name != "posix":
        return False
    import fcntl

    try:
        file = os.open(path, os.O_RDWR)
        fcntl.flock(file, fcntl.LOCK_SH)
    except OSError:
        return False
    _held.append(file)
    return True


def _released(path: Path) -> bool:
    """Whether nobody holds the claim; its locks are removed then."""
    import fcntl

    try:
        with path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for name, identity in json.load(file).items():
                # Another workflow may have a lock of this name by now.
                if _identity(Path(name)) == identity:
                    Path(name).unlink(missing_ok=True)
            path.unlink()
    except FileNotFoundError:
        return True  # another workflow was first
    except ValueError:
        path.unlink(missing_ok=True)  # cut off by a full disk: it names nothing
    except OSError:
        return False
    return True


def _identity(path: Path) -> list[int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return [status.st_ino, status.st_mtime_ns]
