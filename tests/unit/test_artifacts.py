"""Outputs are written completely or not at all, with records of their origin."""

import errno
import json
import os
import shlex
import stat
import subprocess
import sys
from contextlib import contextmanager, suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from helpers.disks import fill, read_only, small_disk
from helpers.forks import in_fork
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file as save_tensors

from apao import files
from apao.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from apao.data.fetch import Expected, copy, fetch
from apao.errors import UserError
from apao.files import (
    atomic_folder,
    atomic_path,
    changed,
    explained,
    read_json,
    read_table,
    sha256_of,
    verified,
    write_json,
)
from apao.stages.record import Stage, git_revision


def save_pdf(path: Path) -> None:
    matplotlib.use("agg")
    from matplotlib.figure import Figure

    figure = Figure()
    figure.add_subplot().plot(np.arange(20_000), np.random.default_rng(0).random(20_000))
    figure.savefig(path, format="pdf")


NOISE = np.random.default_rng(0).random(20_000)
WRITERS = {
    "text": lambda path: path.write_text("x" * 160_000),
    "torch": lambda path: save_tensors({"noise": torch.tensor(NOISE)}, path),
    "numpy": lambda path: save_arrays({"noise": NOISE}, path),
    "parquet": lambda path: pd.DataFrame({"noise": NOISE}).to_parquet(path),
    "csv": lambda path: pd.DataFrame({"noise": NOISE}).to_csv(path),
    "pdf": save_pdf,
}


@pytest.fixture(params=WRITERS)
def write(request):
    """A way in which a stage writes 100 KB or more."""
    return WRITERS[request.param]


def listed(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_when_its_block_ends(tmp_path):
    path = tmp_path / "new" / "folder" / "file.txt"
    with atomic_path(path) as temporary:
        temporary.write_text("first")
        assert not path.exists() and temporary.parent.parent == path.parent
    with atomic_path(path) as temporary:
        temporary.write_text("second")
        assert path.read_text() == "first"
    assert path.read_text() == "second"
    assert listed(path.parent) == ["file.txt"]


def write_half(path: Path, error: type[BaseException]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        raise error


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(error):
        write_half(path, error)
    assert path.read_text() == "old"
    assert listed(tmp_path) == ["file.txt"]


def test_a_writer_that_forgets_to_write_is_a_bug(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "file.txt"):
        pass
    assert listed(tmp_path) == []


def test_files_of_killed_writers_are_removed_and_of_living_ones_kept(tmp_path):
    killed = subprocess.Popen([sys.executable, "-c", ""])
    killed.wait()
    living = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    leftovers = [f".file[1].txt.{process.pid}.tmp" for process in (killed, living)]
    others = [".file[1].txt.notes.tmp", f".other.txt.{killed.pid}.tmp", "file[1].txt.tmp"]
    for name in leftovers + others:
        (tmp_path / name).mkdir()
        (tmp_path / name / "file[1].txt").write_text("half")
        (tmp_path / name / ".a library's own").write_text("half")
    with atomic_path(tmp_path / "file[1].txt") as temporary:
        temporary.write_text("whole")
    living.communicate(b"\n")
    assert listed(tmp_path) == sorted(["file[1].txt", leftovers[1], *others])


def exchange(path: Path, error: type[BaseException]) -> None:
    """Replace a folder, with a failure at the moment when the old one is away and the new one not yet there."""
    with atomic_folder(path) as folder:
        (folder / "file.txt").write_text("new")
        holder = folder.parent
        path.rename(holder / "old")
        raise error


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_folder_that_could_not_be_replaced_is_put_back(tmp_path, error):
    path = tmp_path / "published"
    path.mkdir()
    (path / "file.txt").write_text("old")
    with pytest.raises(error):
        exchange(path, error)
    assert (path / "file.txt").read_text() == "old" and listed(tmp_path) == ["published"]
    # The same after a kill, by the next writer.
    killed = subprocess.Popen([sys.executable, "-c", ""])
    killed.wait()
    holder = tmp_path / f".published.{killed.pid}.tmp"
    holder.mkdir()
    path.rename(holder / "old")
    with pytest.raises(ZeroDivisionError), atomic_folder(path):
        raise ZeroDivisionError
    assert (path / "file.txt").read_text() == "old" and listed(tmp_path) == ["published"]


def test_a_folder_in_place_of_a_file(tmp_path):
    with pytest.raises(UserError, match="a folder; expected the name of a file"), atomic_path(tmp_path) as path:
        path.write_text("never")


@contextmanager
def umask(mask: int):
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_the_umask_says_who_may_read(tmp_path, write, mask, mode):
    with umask(mask), atomic_path(tmp_path / "file") as temporary:
        write(temporary)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode


def test_a_full_disk(tmp_path, write):
    disk = tmp_path / "disk"
    disk.mkdir()
    path = disk / "file"
    with small_disk(disk, 64) as resize:
        path.write_text("old")
        message = r"disk/file: no space left on the disk; .* rerun the same command"
        with pytest.raises(UserError, match=message), atomic_path(path) as temporary:
            write(temporary)
        assert path.read_text() == "old"
        assert listed(disk) == ["file"]
        resize(4096)
        with atomic_path(path) as temporary:
            write(temporary)
        assert path.stat().st_size > 64 * 1024


def test_a_full_disk_does_not_cost_the_last_checkpoint(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    path = disk / "checkpoint.safetensors"
    with small_disk(disk, 64):
        small = Checkpoint({"model": {"weight": torch.ones(10)}}, {"epoch": 1})
        save_checkpoint(path, small, "parameters")
        large = Checkpoint({"model": {"weight": torch.ones(100_000)}}, {"epoch": 2})
        with pytest.raises(UserError, match="no space left"):
            save_checkpoint(path, large, "parameters")
        assert load_checkpoint(path, "parameters").progress == {"epoch": 1}
        assert listed(disk) == ["checkpoint.safetensors"]


def test_a_full_disk_and_a_mirrored_file(tmp_path):
    origin, disk = tmp_path / "origin", tmp_path / "disk"
    origin.write_bytes(NOISE.tobytes())
    disk.mkdir()
    with small_disk(disk, 64):
        with pytest.raises(UserError, match="disk/raw/file: no space left"):
            copy(origin, disk / "raw" / "file", Expected(), "")
        assert listed(disk / "raw") == []


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def test_a_full_disk_and_a_fetched_file(tmp_path):
    site, disk = tmp_path / "site", tmp_path / "disk"
    site.mkdir()
    disk.mkdir()
    (site / "file").write_bytes(NOISE.tobytes())
    with (
        small_disk(disk, 64) as resize,
        ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=site)) as server,
    ):
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/file"
        with pytest.raises(UserError, match=r"disk/file\.part: no space left"):
            fetch(address, disk / "file", Expected(), "")
        assert not (disk / "file").exists()
        resize(4096)
        fetch(address, disk / "file", Expected(), "")
        server.shutdown()
        assert (disk / "file").read_bytes() == NOISE.tobytes()


def test_a_full_disk_and_a_record(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    with small_disk(disk, 64):
        make(disk, "first")
        before = {path.name: path.read_bytes() for path in disk.iterdir()}
        filler = fill(disk / "filler")
        with pytest.raises(UserError, match=r"table\.csv: no space left"):
            make(disk, "second")
        filler.unlink()
        assert {path.name: path.read_bytes() for path in disk.iterdir()} == before
        verified(disk / "table.csv")


NOBODY = 65534


def refusal(folder: Path) -> str:
    """The error of a write, by a process that is not root's, who may write everywhere."""
    if os.geteuid() == 0:
        os.setuid(NOBODY)
    try:
        write_json(folder / "file", 1)
    except UserError as error:
        return str(error)
    return "written"


def test_a_folder_that_may_not_be_written():
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o555)
        said = in_fork(refusal, Path(folder))
        assert said.startswith(f"{folder}/file: cannot be written (Permission denied); check")
        Path(folder).chmod(0o755)
        if os.geteuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
        assert in_fork(refusal, Path(folder)) == "written"


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file") as caught:
        write_json(tmp_path / "file" / "below.json", 1)
    assert caught.value.filename is not None  # the command line recognises it by that


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EPERM, errno.EIO])
def test_errors_of_the_system_that_a_user_can_mend(number):
    error = OSError(number, os.strerror(number))
    assert str(explained(error, Path("some/file"))).startswith("some/file: ")
    assert isinstance(explained(error, Path("some/file")), UserError)


def test_a_read_only_disk(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with (
        read_only(tmp_path),
        pytest.raises(UserError, match=r"/file: cannot be written \(Read-only file system\)"),
        atomic_path(path) as temporary,
    ):
        temporary.write_text("new")
    assert path.read_text() == "old"


def test_other_errors_of_the_system_stay_what_they_are():
    error = OSError(errno.EINVAL, "Invalid argument")
    assert explained(error, Path("file")) is error


def test_json_comes_back(tmp_path):
    value = {"b": [1, 0.1 + 0.2, None, "é"], "a": {}}
    write_json(tmp_path / "file.json", value)
    assert read_json(tmp_path / "file.json") == value
    assert list(read_json(tmp_path / "file.json")) == ["b", "a"]
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "file.json", float("nan"))
    assert listed(tmp_path) == ["file.json"]


@pytest.mark.parametrize("content", [b"", b"{", b'{"a": 1', b"\xff", b"[" * 100_000])
def test_what_is_no_json(tmp_path, content):
    (tmp_path / "file.json").write_bytes(content)
    with pytest.raises(UserError, match=r"file\.json: not valid JSON .* run its stage again"):
        read_json(tmp_path / "file.json")


def test_what_is_not_there(tmp_path):
    for read in (read_json, read_table, verified):
        with pytest.raises(UserError, match=r"nothing: not found; run the stage that makes it first \(snakemake"):
            read(tmp_path / "nothing")


def test_commands_for_a_file_can_be_pasted_into_a_shell(tmp_path, monkeypatch):
    """A run of two stages has ``>`` in its name, which would redirect to a file."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as raised:
        read_json(Path("results/toy/llama/ce->point/seed1/metrics.json"))
    command = str(raised.value).split("(")[1].rstrip(").")
    assert shlex.split(command, comments=True)[-1] == "results/toy/llama/ce->point/seed1/metrics.json"
    assert "'" in command


def make(folder: Path, text: str = "1,2\n", number: float = 1, inputs: tuple[Path, ...] = ()) -> None:
    """A stage with two outputs."""
    with Stage("make", folder, inputs, {"beta": 0.1, "names": ["a"]}, "cpu") as stage:
        with stage.output("table.csv") as path:
            path.write_text(text)
        stage.output_json("numbers.json", {"a": number})


def test_a_stage_says_where_its_outputs_come_from(tmp_path):
    source = tmp_path / "source.txt"
    source.write_text("raw")
    make(tmp_path / "made", inputs=(source,))
    record = json.loads((tmp_path / "made" / "make.provenance.json").read_text())
    assert record["stage"] == "make" and record["device"] == "cpu"
    assert record["params"] == {"beta": 0.1, "names": ["a"]}
    assert record["inputs"] == {str(source): sha256_of(source)}
    assert record["outputs"] == {name: sha256_of(tmp_path / "made" / name) for name in ("table.csv", "numbers.json")}
    assert 0 <= record["seconds"] < 60
    assert record["python"] == ".".join(map(str, sys.version_info[:3]))
    assert record["packages"]["torch"] == torch.__version__ and record["packages"]["numpy"] == np.__version__
    assert {"revision", "command"} <= record.keys()


def test_the_revision_is_that_of_the_code_and_not_of_the_users_repository(tmp_path, monkeypatch):
    """A study in a repository of its own, with the package in a virtual environment there."""
    checkout, study = tmp_path / "checkout", tmp_path / "study"
    package, installed = checkout / "src" / "apao", study / ".venv" / "apao"
    monkeypatch.delenv("APAO_REVISION", raising=False)
    revisions = {}
    for repository in (checkout, study):
        (repository / "src" / "apao").mkdir(parents=True)
        git = ["git", "-C", str(repository), "-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run([*git, "init", "-q"], check=True)
        subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", repository.name], check=True)
        done = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
        revisions[repository] = done.stdout[:12]
    monkeypatch.chdir(study)
    assert git_revision(package) == revisions[checkout] != revisions[study]
    assert git_revision(installed) is None
    monkeypatch.setenv("APAO_REVISION", "0123456789ab")
    assert git_revision(installed) == "0123456789ab"


def test_hashes_are_sha256(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    # FIPS 180-2, appendix B.1.
    assert sha256_of(tmp_path / "file") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def truncate(content: bytes) -> bytes:
    return content[:-1]


def flip_one_bit(content: bytes) -> bytes:
    return bytes([content[0] ^ 1]) + content[1:]


@pytest.mark.parametrize("damage", [truncate, flip_one_bit])
@pytest.mark.parametrize("name", ["table.csv", "numbers.json"])
def test_damage_is_named(tmp_path, damage, name):
    make(tmp_path)
    assert verified(tmp_path / name) == tmp_path / name
    (tmp_path / name).write_bytes(damage((tmp_path / name).read_bytes()))
    message = rf"{name}: its content does not match the hash in make\.provenance\.json.*run its stage again"
    with pytest.raises(UserError, match=message):
        verified(tmp_path / name)
    with pytest.raises(UserError, match=message):
        make(tmp_path / "next", inputs=(tmp_path / name,))
    assert not (tmp_path / "next").exists()


def test_a_file_without_a_record_is_taken_as_it_is(tmp_path):
    make(tmp_path)
    (tmp_path / "own.csv").write_text("mine")
    assert verified(tmp_path / "own.csv").read_text() == "mine"


@pytest.mark.parametrize("content", ["[]", "{}", '{"outputs": []}', "3", "{"])
def test_a_damaged_record_is_named(tmp_path, content):
    make(tmp_path)
    (tmp_path / "make.provenance.json").write_text(content)
    with pytest.raises(UserError, match=r"make\.provenance\.json: .* delete it and run its stage again"):
        verified(tmp_path / "table.csv")


@pytest.mark.parametrize(("old", "new"), [("table.csv", "table.csw"), ("0.1", "0.3"), ('"make"', '"mate"')])
def test_an_edited_record_is_named(tmp_path, old, new):
    make(tmp_path)
    record = tmp_path / "make.provenance.json"
    record.write_text(record.read_text().replace(old, new))
    with pytest.raises(UserError, match=r"make\.provenance\.json: its content does not match the hash inside"):
        verified(tmp_path / "table.csv")


def test_all_that_changed_is_listed(tmp_path):
    make(tmp_path / "a")
    make(tmp_path / "b" / "c")
    make(tmp_path / "d")
    with atomic_path(tmp_path / "a" / "make.provenance.json") as temporary:
        temporary.write_text("{")  # as left by a killed writer
        assert list(changed([tmp_path])) == []
        temporary.write_bytes((tmp_path / "a" / "make.provenance.json").read_bytes())
    (tmp_path / "a" / "table.csv").write_text("2,2\n")
    (tmp_path / "b" / "c" / "numbers.json").unlink()
    (tmp_path / "d" / "make.provenance.json").write_text("{")
    found = [line.removeprefix(f"{tmp_path}/").partition(":")[0] for line in changed([tmp_path])]
    assert found == ["a/table.csv", "b/c/numbers.json", "d/make.provenance.json"]


def test_a_stage_that_fails_before_its_first_output_leaves_all_as_it_was(tmp_path):
    make(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(TypeError, match="must be str"):
        make(tmp_path, text=3)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_stage_that_fails_after_its_first_output_leaves_no_record(tmp_path):
    make(tmp_path)
    with pytest.raises(ValueError, match="JSON compliant"):
        make(tmp_path, number=float("nan"))
    assert listed(tmp_path) == ["numbers.json", "table.csv"]
    verified(tmp_path / "numbers.json")


def test_a_table_comes_back_as_far_as_it_is_asked_for(tmp_path):
    table = pd.DataFrame({"user": [1, 2], "item": ["a", "b"]})
    table.to_parquet(tmp_path / "table.parquet")
    pd.testing.assert_frame_equal(read_table(tmp_path / "table.parquet"), table)
    assert list(read_table(tmp_path / "table.parquet", ["item"])) == ["item"]
    with pytest.raises(UserError, match=r"table\.parquet: not a list of users with the columns user, time"):
        read_table(tmp_path / "table.parquet", ["user", "time"], "list of users")


def test_no_damage_to_a_table_ends_in_a_traceback(tmp_path):
    table = pd.DataFrame({"user": np.arange(50), "split": pd.Categorical.from_codes([0, 1] * 25, ["a", "b"])})
    path = tmp_path / "table.parquet"
    table.to_parquet(path)
    content = path.read_bytes()
    taken = 0
    for place in [*range(0, len(content), 5), len(content) - 1]:
        for damaged in (content[:place], content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :]):
            path.write_bytes(damaged)
            with suppress(UserError):
                read_table(path, ["user", "split"])
                taken += 1
    assert 0 < taken < len(content) // 5  # some bytes have no meaning, and it has no own hash


def test_a_record_that_another_stage_replaces_does_not_matter(tmp_path, monkeypatch):
    """Stages of one run work side by side in its folder; each removes its record before it replaces its files."""
    (tmp_path / "table.csv").write_text("1")
    gone = tmp_path / "other.provenance.json"
    gone.write_text("{}")
    read = files.read_record

    def replaced_meanwhile(record):
        gone.unlink(missing_ok=True)
        return read(record)

    monkeypatch.setattr(files, "read_record", replaced_meanwhile)
    assert verified(tmp_path / "table.csv").read_text() == "1"
