"""Whole files: written under a temporary name and renamed, read only where their hash is the recorded one.

Beside the files of a stage lies ``<stage>.provenance.json`` with their hashes (``stages.record`` writes it), beside
those of a published run ``provenance.json`` (``stages.publish``).
Reading through ``verified`` names a truncated or changed file instead of computing with it.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apao.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


RECORDS = "*provenance.json"
"""``<stage>.provenance.json``, and the ``provenance.json`` of a published run."""


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path on the same disk; rename it to ``path`` when the block succeeds.

    It lies in a folder of its own, so that the temporary files a library makes beside it (safetensors
    does) are found and removed with it when the writer is killed.

    Raises:
        UserError: when the disk is full or the folder cannot be written; ``path`` is left as it was.
    """
    holder = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary = holder / f"{path.name}.tmp"  # no name that a search for finished files would find
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path)
        holder.mkdir(exist_ok=True)
        mode = _mode_of_new_file(temporary)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        if temporary.stat().st_mode != mode:
            # safetensors makes files that only their owner can read, whatever the umask.
            temporary.chmod(mode)
        temporary.replace(path)
    except OSError as error:
        raise explained(error, path) from error
    except Exception as error:
        if not isinstance(error, UserError) and _tells_of_full_disk(error):
            raise explained(OSError(errno.ENOSPC, str(error)), path) from error
        raise
    finally:
        # A disk that has become read-only refuses this too, which must not hide the error above.
        shutil.rmtree(holder, ignore_errors=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that takes the place of the folder ``path`` when the block succeeds.

    Raises:
        UserError: when the disk is full or the folder cannot be written; ``path`` is left as it was.
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
        shutil.rmtree(holder, ignore_errors=True)


def _tells_of_full_disk(error: BaseException | None) -> bool:
    """Whether a full disk is behind an exception, be it a library's own or one met while closing the file."""
    while error is not None:
        if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _mode_of_new_file(path: Path) -> int:
    """The mode that umask and folder give to a new file at ``path``."""
    path.touch()
    mode = path.stat().st_mode
    path.unlink()
    return mode


def _remove_abandoned(path: Path) -> None:
    """Remove temporary folders of ``path`` whose writers were killed."""
    for old in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        process = old.name.removesuffix(".tmp").rpartition(".")[2]
        if os.name == "posix" and process.isdigit() and not _is_running(int(process)):
            shutil.rmtree(old, ignore_errors=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


def explained(error: OSError, path: Path) -> UserError | OSError:
    """A UserError for the operating-system errors that a user can correct, else the error itself."""
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
    """Write JSON (keys stay in their order, no NaN) atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(json_text(value), encoding="utf-8")


def json_text(value: Any) -> str:
    """JSON as we write it: keys in their order, no NaN."""
    return json.dumps(value, indent=1, allow_nan=False) + "\n"


def read_json(path: Path) -> Any:
    """Read a JSON file that an earlier stage or a download left.

    Raises:
        UserError: when it is missing or not JSON, naming the line.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise missing(path) from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error}); delete it and run its stage again.") from error


def missing(path: Path) -> UserError:
    """The error for a stage whose input has not been made."""
    return UserError(f"{path}: not found; run the stage that makes it first (snakemake -c2 {path}).")


def verified(path: Path) -> Path:
    """``path``, once its content is seen to match the hash its stage recorded beside it.

    A file without a record (one the user brought) is taken as it is.

    Raises:
        UserError: when the file is missing or differs from the record.
    """
    if not path.exists():
        raise missing(path)
    for record in sorted(path.parent.glob(RECORDS)):
        expected = _recorded(record).get(path.name)
        if expected is not None and expected != sha256_of(path):
            raise UserError(
                f"{path}: its content does not match the hash in {record.name}, so it was damaged or "
                f"edited after it was made; delete it and run its stage again (snakemake -c2 {path})."
            )
    return path


def _recorded(record: Path) -> dict[str, str]:
    """Hashes by file name, as a stage recorded them."""
    value = read_json(record)
    try:
        intact = value.pop("digest") == digest_of(value)
        outputs: dict[str, str] = dict(value["outputs"].items())
    except (LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{record}: not a record of a stage; delete it and run its stage again.") from error
    if not intact:
        raise UserError(
            f"{record}: its content does not match the hash inside, so it was damaged or edited; "
            "delete it and run its stage again."
        )
    return outputs


def digest_of(record: Mapping[str, Any]) -> str:
    """Hash of a record's own content."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def changed(folders: Iterable[Path]) -> Iterator[str]:
    """Files below ``folders`` that differ from their records: one line per file."""
    for folder in folders:
        for record in sorted(folder.rglob(RECORDS)):
            try:
                outputs = _recorded(record)
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
    """Read a parquet table that an earlier stage left; errors call it a ``what``.

    Raises:
        UserError: when it is missing, damaged, or lacks the columns.
    """
    import pandas as pd

    verified(path)
    try:
        return pd.read_parquet(path, columns=columns)
    except Exception as error:  # a damaged file may raise nearly anything
        wanted = f" with the columns {', '.join(columns)}" if columns else ""
        raise UserError(
            f"{path}: not a {what}{wanted} ({error}); delete it and run its stage again (snakemake -c2 {path})."
        ) from error


def record_path(folder: Path, stage: str) -> Path:
    """Where a stage that writes into ``folder`` leaves its provenance."""
    return folder / f"{stage}.provenance.json"
