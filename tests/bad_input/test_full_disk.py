"""A disk that fills up: one line, earlier files as they were, and the same command goes on once there is room."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from shutil import copytree, rmtree

import pytest
from shop_project import CHECKPOINT, MODEL, RUN, RUN_FOLDER, Done, entry_point, hashes


@pytest.fixture
def disk() -> Iterator[Callable[[Path, int], Callable[[int], None]]]:
    """Gives a folder, with its content, a disk of its own of so many KiB, and returns what resizes that."""
    with ExitStack() as stack:

        def mount(folder: Path, size: int) -> Callable[[int], None]:
            content = Path(copytree(folder, folder.with_name(folder.name + ".content")))
            try:
                subprocess.run(
                    ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", folder], check=True, capture_output=True
                )
            except (OSError, subprocess.CalledProcessError) as error:
                pytest.skip(f"a disk of a chosen size needs root and tmpfs ({error})")
            stack.callback(subprocess.run, ["umount", "--lazy", folder], check=True)
            copytree(content, folder, dirs_exist_ok=True)
            rmtree(content)
            return lambda size: subprocess.run(["mount", "-o", f"remount,size={size}k", folder], check=True)

        yield mount


def assert_full(done: Done, file: str) -> None:
    assert done.status == 1, done.output
    assert "Traceback" not in done.output
    assert len(done.errors) == 1, done.output
    assert done.errors[0].startswith(f"error: {file}")
    assert ": no space left on the disk" in done.errors[0] and "it continues" in done.errors[0]


def fill(file: Path) -> None:
    """Leave no room beside ``file``."""
    with suppress(OSError), file.open("wb", buffering=0) as filler:
        while filler.write(bytes(4096)):
            pass


def test_training(disk, interrupted, finished, tmp_path):
    project = Path(copytree(interrupted, tmp_path / "shop"))
    size = (project / CHECKPOINT).stat().st_size // 1024
    # The old checkpoint stays until the new one is whole: there is room for one and a half.
    resize = disk(project / "results", size * 3 // 2)
    before = hashes(project)
    assert_full(entry_point(project, "train", RUN, "--device", "cpu"), str(CHECKPOINT))
    assert hashes(project) == before
    resize(10 * size)
    assert entry_point(project, "train", RUN, "--device", "cpu").status == 0
    assert (project / MODEL).read_bytes() == (finished / MODEL).read_bytes()


@pytest.mark.parametrize(
    ("folder", "command", "file"),
    [
        ("data", "preprocess shop", "data/shop/interactions.parquet"),
        ("data", "codes shop", "data/shop/codes.parquet"),
        ("results", f"train {RUN}", f"{RUN_FOLDER}/"),
        ("results", f"evaluate {RUN}", f"{RUN_FOLDER}/ranks.parquet"),
        ("results", "baselines shop", "results/shop/baselines/metrics.json"),
    ],
)
def test_no_room_at_all(disk, finished, tmp_path, folder, command, file):
    project = Path(copytree(finished, tmp_path / "shop"))
    disk(project / folder, 400)
    filler = project / folder / "filler"
    fill(filler)
    before = hashes(project)
    assert_full(entry_point(project, *command.split()), file)
    assert hashes(project) == before
    filler.unlink()
    done = entry_point(project, *command.split())
    assert done.status == 0, done.output
