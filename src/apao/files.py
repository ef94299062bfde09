"""Atomic writes, reads that are verified against recorded hashes, and locks.

A stage writes ``<stage>.provenance.json``, the hashes of its outputs, beside them (``stages.record``); a published run
has a ``provenance.json`` (``stages.publish``). ``verified`` raises an error that names a truncated or changed file, so
that no stage computes with it.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from apao.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


PUBLISHED_RECORD = "provenance.json"
"""Of a published run, for all its files."""
RECORDS = f"*{PUBLISHED_RECORD}"
"""That, and ``<stage>.provenance.json``."""


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path on the same disk; rename it to ``path`` when the block succeeds.

    The temporary path has a folder of its own, so that the temporary files that a library creates beside it
    (safetensors does) are removed with it if the writer is killed.

    Raises:
        UserError: when the disk is full or the folder is not writable; ``path`` is then unchanged.
    """
    if not path.name:
        raise UserError(f"{path}: a folder; expected the name of a file")
    holder = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary = holder / f"{path.name}.tmp"  # a suffix that no search for finished files matches
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path)
        if path.is_dir():
            raise UserError(f"{path}: a folder; expected the name of a file")
        holder.mkdir(exist_ok=True)
        mode = _mode_of_new_file(temporary)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        if temporary.stat().st_mode != mode:
            # safetensors creates files that only their owner can read, regardless of the umask.
            temporary.chmod(mode)
        temporary.replace(path)
    except OSError as error:
        raise explained(error, path) from error
    except Exception as error:
        if not isinstance(error, UserError) and _caused_by_full_disk(error):
            raise explained(OSError(errno.ENOSPC, str(error)), path) from error
        raise
    finally:
        # On a disk that became read-only this fails as well, which must not hide the error above.
        shutil.rmtree(holder, ignore_errors=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that replaces the folder ``path`` when the block succeeds.

    Raises:
        UserError: when the disk is full or the folder is not writable; ``path`` is then unchanged.
    """
    holder = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    new, old = holder / "new", holder / "old"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path)
        new.mkdir(parents=True)
        yield new
        if path.exists():
            path.rename(old)
        new.rename(path)
    except OSError as error:
        raise explained(error, path) from error
    finally:
        _remove(holder, path)


@contextmanager
def locked(path: Path, on_wait: Callable[[], object] | None = None) -> Iterator[None]:
    """Hold the lock file ``path``, which at most one process does at a time.

    If another one does, call ``on_wait`` and wait for it.

    Raises:
        BlockingIOError: when another process holds it and there is no ``on_wait``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Open for writing: on NFS a lock needs that.
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if on_wait is None:
                raise
            on_wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _caused_by_full_disk(error: BaseException | None) -> bool:
    """Whether a full disk caused ``error``: a library's own exception, or one raised on closing the file."""
    while error is not None:
        if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _mode_of_new_file(path: Path) -> int:
    """Mode of a new file at ``path`` according to umask and folder."""
    path.touch()
    mode = path.stat().st_mode
    path.unlink()
    return mode


def _remove_abandoned(path: Path) -> None:
    """Remove temporary folders of ``path`` whose writers were killed."""
    for old in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        process = old.name.removesuffix(".tmp").rpartition(".")[2]
        if process.isdigit() and not _is_running(int(process)):
            _remove(old, path)


def _remove(holder: Path, path: Path) -> None:
    """Remove a temporary folder of ``path``, after putting back what it replaced if nothing has taken its place."""
    if (holder / "old").exists() and not path.exists():
        (holder / "old").rename(path)
    shutil.rmtree(holder, ignore_errors=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


def explained(error: OSError, path: Path) -> UserError | OSError:
    """The UserError for an operating-system error that the user can correct; any other error unchanged."""
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return UserError(
                f"{path}: no space left on the disk; the earlier version of the file, if any, is "
                "untouched. Free some space and rerun the same command to resume."
            )
        case errno.EACCES | errno.EROFS | errno.EPERM | errno.EFBIG | errno.EIO:
            return UserError(f"{path}: cannot be written ({error.strerror}); check the folder's permissions and disk.")
        case _:
            return error


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, with keys in their order; NaN raises ValueError."""
    with atomic_path(path) as temporary:
        temporary.write_text(json_text(value), encoding="utf-8")


def json_text(value: Any) -> str:
    """JSON text in the format of all our files, with keys in their order; NaN raises ValueError."""
    return json.dumps(value, indent=1, allow_nan=False) + "\n"


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that an earlier stage or a download wrote.

    Raises:
        UserError: when it is missing, not JSON (naming the line), or not an object.
    """
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise missing(path) from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error}); {again(path, target=False)}.") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object; {again(path, target=False)}.")
    return value


def missing(path: Path) -> UserError:
    """The error for an input file that does not exist yet."""
    return UserError(f"{path}: not found; run the stage that makes it first (snakemake -c2 {quote(str(path))}).")


def again(path: Path, target: bool = True) -> str:
    """What to do about a damaged file: make it again, or restore it if it belongs to a published run.

    Args:
        path: the file; an absolute path is outside the project folder.
        target: whether the workflow makes it under this name.
    """
    if (path.parent / PUBLISHED_RECORD).exists():
        return f"restore it (git checkout -- {quote(str(path))}), or publish the run again (apao publish RUN --replace)"
    return "delete it and run its stage again" + (
        f" (snakemake -c2 {quote(str(path))})" if target and not path.is_absolute() else ""
    )


def verified(path: Path) -> Path:
    """Return ``path`` after checking its content against the hash that its stage recorded beside it.

    A file without a record (one that the user provided) is not checked.

    Raises:
        UserError: when the file is missing or differs from the record.
    """
    if not path.exists():
        raise missing(path)
    for record, value in _records_of(path):
        if value["outputs"][path.name] != sha256_of(path):
            raise UserError(
                f"{path}: its content does not match the hash in {record.name}, so it was damaged or "
                f"edited after it was written; {again(path)}."
            )
    return path


def check_made_from(path: Path, source: Path, recorded: Path | None = None) -> None:
    """Refuse ``path`` if the stage that wrote it read another ``source`` than is there now.

    A file without a record (one that the user provided) is not checked.

    Args:
        path: the output of a stage.
        source: an input of that stage.
        recorded: how the stage's record names the source, if otherwise.

    Raises:
        UserError: naming both.
    """
    for _, value in _records_of(path):
        read = value.get("inputs", {}).get(str(recorded or source))
        if read is not None and source.exists() and read != sha256_of(source):
            raise UserError(f"{path}: was made from another {source} than there is now; {again(path)}.")


def _records_of(path: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The records beside ``path`` that list it among their outputs."""
    for record in sorted(path.parent.glob(RECORDS)):
        try:
            value = read_record(record)
        except UserError:
            if record.exists():
                raise
            continue  # another stage of the folder is replacing its files just now
        if path.name in value["outputs"]:
            yield record, value


def read_record(record: Path) -> dict[str, Any]:
    """A stage's record; ``outputs`` are the hashes of its outputs by file name.

    Raises:
        UserError: when the file is no record, or was changed.
    """
    value = read_json(record)
    try:
        intact = is_intact(value)
        value["outputs"].items(), value.get("inputs", {}).items()  # those of published runs have no inputs
    except (LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{record}: not a record of a stage; {again(record, target=False)}.") from error
    if not intact:
        raise UserError(
            f"{record}: its content does not match the hash inside, so it was damaged or edited; "
            f"{again(record, target=False)}."
        )
    return value


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write a stage's record with a hash of its own content."""
    write_json(path, {**record, "digest": digest_of(json.loads(json_text(record)))})


def is_intact(record: Mapping[str, Any]) -> bool:
    """Whether a record's content matches the hash in it."""
    return bool(record["digest"] == digest_of({key: part for key, part in record.items() if key != "digest"}))


def digest_of(record: Mapping[str, Any]) -> str:
    """Hex SHA-256 of a record's content."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def changed(folders: Iterable[Path]) -> Iterator[str]:
    """Yield one line for every file below ``folders`` that differs from its stage's record."""
    for folder in folders:
        for record in sorted(folder.rglob(RECORDS)):
            try:
                outputs = read_record(record)["outputs"]
            except UserError as error:
                yield str(error)
                continue
            for name, expected in outputs.items():
                path = record.with_name(name)
                if not path.exists():
                    yield f"{path}: not found, though {record.name} lists it"
                elif sha256_of(path) != expected:
                    yield f"{path}: its content does not match the hash in {record.name}"


def read_table(path: Path, columns: list[str] | None = None, what: str = "table") -> pd.DataFrame:
    """Read a parquet table that an earlier stage wrote; ``what`` names its kind in error messages.

    Raises:
        UserError: when it is missing, damaged, or lacks the columns.
    """
    import pandas as pd

    verified(path)
    try:
        return pd.read_parquet(path, columns=columns)
    except Exception as error:  # a damaged file can raise almost any exception
        wanted = f" with the columns {', '.join(columns)}" if columns else ""
        raise UserError(f"{path}: not a {what}{wanted} ({error}); {again(path)}.") from error


def record_path(folder: Path, stage: str) -> Path:
    """Path of the provenance record of a stage that writes into ``folder``."""
    return folder / f"{stage}.provenance.json"
