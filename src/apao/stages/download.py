"""The stage ``download``: a dataset's raw files and their hashes."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from apao.data.base import Source
from apao.errors import UserError
from apao.files import atomic_path, read_json, sha256_of, verified
from apao.stages.record import Stage
from apao.study.paths import DatasetPaths


def download(dataset: str, source: Source, mirror: Path | None) -> Path:
    """Create ``data/<dataset>/raw`` atomically and return the path of its ``manifest.json``.

    The manifest has the parameters of the download (``source``) and the SHA-256 and size of every file (``files``);
    its own hash is written beside the folder. Files that match an earlier manifest are kept, changed ones are fetched
    again. An incomplete download is in ``data/<dataset>/raw.part``, where the next attempt resumes.

    Args:
        dataset: key of the entry in params.yaml.
        source: the entry.
        mirror: folder that is searched for the files before they are fetched, or None.

    Raises:
        UserError: when a file cannot be obtained or is not the expected one, or the mirror is not a folder.
    """
    paths = DatasetPaths(dataset)
    if mirror is not None and not mirror.is_dir():
        raise UserError(f"{mirror}: the mirror is not a folder; name an existing one, or none to download the files")
    _drop_changed(paths)
    arriving = paths.arriving
    if paths.raw.is_dir() and not paths.raw.is_symlink() and not arriving.exists():
        paths.raw.rename(arriving)
    with Stage("download", arriving, [], {**what_is_fetched(source), "mirror": mirror and str(mirror)}) as stage:
        stage.forget_record()
        files = {}
        for name in source.download(arriving, mirror):
            path = arriving / name
            stage.outputs[name] = sha256_of(path)
            files[name] = {"sha256": stage.outputs[name], "bytes": path.stat().st_size}
        stage.output_json(paths.manifest.name, {"source": what_is_fetched(source), "files": files})
    _remove(paths.raw)
    arriving.rename(paths.raw)
    with atomic_path(paths.raw_hash) as path:
        path.write_bytes(_hash_line(paths))
    return paths.manifest


def _hash_line(paths: DatasetPaths) -> bytes:
    """Content of ``raw.sha256``."""
    return f"{sha256_of(paths.manifest)}  {paths.raw.name}/{paths.manifest.name}\n".encode()


def _remove(folder: Path) -> None:
    """Remove an earlier folder, or only the link to a folder in a shared cache."""
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)


def what_is_fetched(source: Source) -> dict[str, Any]:
    """The parameters that determine which files are downloaded."""
    return source.model_dump(mode="json", include={"source", *source.fetched_by})


def check_raw(dataset: str, source: Source) -> None:
    """Check the downloaded files against the manifest.

    Raises:
        UserError: when a file is missing, truncated or changed, or the manifest belongs to another source; names
            the file.
    """
    paths = DatasetPaths(dataset)
    manifest = read_json(paths.manifest)
    again = f"run: apao download {dataset}"
    wanted = what_is_fetched(source)
    try:
        made_for = manifest["source"]
        files = {name: (facts["bytes"], facts["sha256"]) for name, facts in manifest["files"].items()}
    except (LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{paths.manifest}: not a list of downloaded files; {again}") from error
    if made_for != wanted:
        raise UserError(f"{paths.manifest}: is a download for {made_for}, but params.yaml has {wanted}; {again}")
    there = _files_in(paths.raw)
    for name, (expected_bytes, expected_hash) in files.items():
        if name not in there:
            raise UserError(f"{paths.raw / name}: not found, though the manifest lists it; {again}")
        path = there[name]
        size = path.stat().st_size
        if size != expected_bytes:
            raise UserError(f"{path}: expected {expected_bytes} bytes as downloaded, found {size}; {again}")
        if sha256_of(path) != expected_hash:
            raise UserError(f"{path}: its content changed since it was downloaded (sha256 differs); {again}")


def changed_hashes(datasets: Iterable[DatasetPaths]) -> Iterator[str]:
    """Yield one line for every ``raw.sha256`` that does not match its manifest.

    A manifest that differs from its stage's record is skipped; ``files.changed`` reports it.
    """
    for paths in datasets:
        try:
            verified(paths.manifest)
        except UserError:
            continue
        if not paths.raw_hash.exists():
            yield f"{paths.raw_hash}: not found, though {paths.manifest} exists"
        elif paths.raw_hash.read_bytes() != _hash_line(paths):
            yield f"{paths.raw_hash}: its content does not match the hash of {paths.manifest}"


def _drop_changed(paths: DatasetPaths) -> None:
    """Remove files that differ from the earlier manifest, and that manifest, which will be replaced."""
    if not paths.manifest.exists() or paths.raw.is_symlink():
        return
    try:
        recorded = {name: facts["sha256"] for name, facts in read_json(paths.manifest)["files"].items()}
    except (UserError, LookupError, TypeError, AttributeError):
        # The manifest cannot be read: rely on the checks of the source.
        recorded = {}
    for name, path in _files_in(paths.raw).items():
        if name in recorded and sha256_of(path) != recorded[name]:
            path.unlink()
    paths.manifest.unlink(missing_ok=True)


def _files_in(folder: Path) -> dict[str, Path]:
    """Files of ``folder`` by name. Names of a manifest are looked up here, since as paths they could leave it."""
    return {path.name: path for path in folder.iterdir() if path.is_file()}
