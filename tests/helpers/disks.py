"""Disks of a chosen size."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import copytree, rmtree

import pytest


@contextmanager
def small_disk(folder: Path, kibibytes: int) -> Iterator[Callable[[int], None]]:
    """Move ``folder`` to its own disk; yields a function that resizes it. Skips the test where mount fails."""
    content = Path(copytree(folder, folder.with_name(folder.name + ".content")))
    command = ["mount", "-t", "tmpfs", "-o", f"size={kibibytes}k", "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a disk of a chosen size needs root and tmpfs ({error})")
    try:
        copytree(content, folder, dirs_exist_ok=True)
        rmtree(content)
        yield lambda size: _run("mount", "-o", f"remount,size={size}k", str(folder))
    finally:
        _run("umount", "--lazy", str(folder))


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


def fill(file: Path) -> Path:
    """Fill the disk with ``file``."""
    with suppress(OSError), file.open("wb", buffering=0) as filler:
        while filler.write(bytes(4096)):
            pass
    return file


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Make ``folder`` read-only, also for root. Skips the test where that is not allowed."""
    try:
        subprocess.run(["mount", "--bind", str(folder), str(folder)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a folder that root cannot write needs root and mount ({error})")
    try:
        _run("mount", "-o", "remount,bind,ro", str(folder))
        yield
    finally:
        _run("umount", "--lazy", str(folder))
