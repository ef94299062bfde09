"""Content of a project's files, for comparing projects and for checking that each file is complete."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open

from apao.files import digest_of

TIMED = ("history.csv", "beams.json", "decoding_time.json")
"""Files that contain durations."""
UNFINISHED = ("checkpoint.safetensors", "embeddings.shards")
"""Files that a stage resumes from; removed when it is done."""
SNAKEMAKES = ".snakemake_timestamp"
"""Snakemake's time stamp of an output folder."""


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below ``folder``, except TensorBoard's, whose names contain process and time."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "tensorboard" not in path.parts
    }


def version(path: Path) -> tuple[int, int] | None:
    """Identifies the version of a file that is replaced atomically; None while there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


def record_of(outputs: Mapping[str, str], **more: str) -> dict[str, Any]:
    """A stage's record, with the hashes of its outputs."""
    record = {**more, "outputs": dict(outputs)}
    return record | {"digest": digest_of(record)}


def content(folder: Path) -> dict[str, Any]:
    """Content of every file below data, results and figures by name, without times and durations.

    Raises:
        ValueError: when a file that is read for this is incomplete.
    """
    return {
        str(path.relative_to(folder)): _content(path)
        for top in ("data", "results", "figures")
        for path in sorted((folder / top).rglob("*"))
        if path.is_file() and path.name != SNAKEMAKES and "tensorboard" not in path.parts
    }


def is_finished(name: str) -> bool:
    """Whether a file with this name is a stage's output, not a temporary file or one to resume from."""
    return not any(part in UNFINISHED or part.endswith((".tmp", ".part")) for part in Path(name).parts)


def _content(path: Path) -> Any:
    if not is_finished(str(path)):
        return None
    if path.name.endswith(".provenance.json"):
        record = json.loads(path.read_bytes())
        files = {
            f"{kind} {name}": digest
            for kind in ("inputs", "outputs")
            for name, digest in record[kind].items()
            if Path(name).name not in TIMED
        }
        return files | {name: record[name] for name in ("stage", "params", "device", "packages")}
    if path.name == "history.csv":
        rows = list(csv.DictReader(io.StringIO(path.read_text())))
        return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]
    if path.name in TIMED:
        return _without_seconds(json.loads(path.read_bytes()))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _without_seconds(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_seconds(one) for name, one in value.items() if "seconds" not in name}
    return [_without_seconds(one) for one in value] if isinstance(value, list) else value


def assert_whole(folder: Path, *allowed: dict[str, Any]) -> None:
    """Assert that every finished file is byte-identical to one in ``allowed``, and that files in records exist."""
    for name, found in content(folder).items():
        if is_finished(name):
            assert any(found == known.get(name) for known in allowed), f"{name} is neither the old nor the new one"
    for record in folder.rglob("*.provenance.json"):
        for name, expected in json.loads(record.read_bytes())["outputs"].items():
            file = record.with_name(name)
            assert file.exists(), f"{record} lists {name}, which does not exist"
            assert hashlib.sha256(file.read_bytes()).hexdigest() == expected, f"{record} has the hash of another {name}"


def epochs_in(checkpoint: Path) -> list[dict[str, Any]]:
    """History rows in a checkpoint; empty if there is none."""
    if not checkpoint.exists():
        return []
    with safe_open(checkpoint, framework="pt") as file:
        return json.loads(file.metadata()["progress"])["history"]


def seconds_of_epochs(history: Path) -> list[float]:
    """Duration of each epoch, which differs if the epoch was trained again."""
    return [float(row["seconds"]) for row in csv.DictReader(io.StringIO(history.read_text()))]
