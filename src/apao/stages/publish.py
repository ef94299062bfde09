"""The stage ``publish``: copies the small files of finished runs into results/published in the repository.

A published run is a folder with run.json, metrics.json, ranks.parquet, history.csv, further measurements, and
provenance.json: the records of the stages that wrote these files, the machine, and a hash of each file. It documents
what one revision measured on one machine; later revisions do not put it out of date.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from apao.errors import UserError
from apao.evaluation.metrics import user_metrics
from apao.files import (
    PUBLISHED_RECORD,
    atomic_folder,
    atomic_path,
    is_intact,
    read_json,
    read_record,
    read_table,
    sha256_of,
    verified,
    write_record,
)
from apao.progress import console
from apao.study.paths import PUBLISHED, DatasetPaths
from apao.study.run_params import first_difference
from apao.study.runs import MODEL_FILE, RECORD_FILE, Run

REQUIRED = (RECORD_FILE, "history.csv", "metrics.json", "ranks.parquet")
MEASURED = ("pruning.json", "beams.json", "exact.json", "lists.parquet")
"""Files that are published if they exist."""
LARGEST_LISTS = 2**20
"""Maximum bytes of a lists.parquet that is published."""
METRICS = "metrics.json"
Records = Mapping[str, Mapping[str, Any]]
"""Provenance records by stage."""


@dataclass(frozen=True)
class Parcel:
    """The files to publish in one folder.

    Attributes:
        folder: target folder in results/published.
        files: source path of each file by its name.
        records: provenance records of the stages that wrote the files.
        machine: machine that computed them.
    """

    folder: Path
    files: Mapping[str, Path]
    records: Records
    machine: str

    def write(self) -> None:
        """Write the folder atomically."""
        with atomic_folder(self.folder) as folder:
            for name, path in self.files.items():
                with atomic_path(folder / name) as temporary:
                    shutil.copyfile(path, temporary)
            outputs = {name: sha256_of(folder / name) for name in self.files}
            record = {"stage": "publish", "machine": self.machine, **self.records, "outputs": outputs}
            write_record(folder / PUBLISHED_RECORD, record)


def publish(names: Sequence[str], source: Path, replace: bool = False) -> None:
    """Publish finished runs of the project folder ``source``.

    All runs are checked before the first is written. A run that is already published with the same numbers, times
    apart, is left unchanged, except that new measurements are added.

    Args:
        names: trained and evaluated runs, and ``dataset/baselines`` for the untrained baselines of a dataset.
        source: the folder that contains ``results``.
        replace: replace published runs whose numbers differ.

    Raises:
        UserError: for a run that is unfinished, damaged, or already published with other numbers.
    """
    planned = [_planned(_parcel(name, source), replace) for name in names]
    for parcel, done in planned:
        if parcel is not None:
            parcel.write()
        console.print(done)


def _parcel(name: str, source: Path) -> Parcel:
    dataset, _, what = name.removeprefix("results/").rstrip("/").partition("/")
    return _baselines(dataset, source) if what == "baselines" else _run(Run.parse(name), source)


def _run(run: Run, source: Path) -> Parcel:
    """Parcel of a run; raises UserError if the run is unfinished or damaged."""
    folder = source / run.folder
    files = {name: folder / name for name in REQUIRED}
    for path in files.values():
        if not path.exists():
            target = quote(str(run.folder / METRICS))
            raise UserError(f"{path}: not found, so the run is not finished; finish it: snakemake -c2 {target}")
    files |= {name: folder / name for name in MEASURED if _is_published(folder / name)}
    records = _records(files)
    if faults := list(_run_faults(run, folder, records)):
        raise UserError(faults[0])
    return Parcel(PUBLISHED.place(run.folder), files, records, _machine(records["train"]))


def _is_published(path: Path) -> bool:
    return path.exists() and (path.suffix == ".json" or path.stat().st_size <= LARGEST_LISTS)


def _baselines(dataset: str, source: Path) -> Parcel:
    path = DatasetPaths(dataset, source).baselines
    records = _records({METRICS: path})
    folder = PUBLISHED.place(DatasetPaths(dataset).baselines).parent
    return Parcel(folder, {METRICS: path}, records, _machine(records["baselines"]))


def _records(files: Mapping[str, Path]) -> dict[str, Any]:
    """Records of the stages that wrote the files, which are all in one folder.

    Raises:
        UserError: when a file is damaged or not listed in any record.
    """
    folder = next(iter(files.values())).parent
    found = {path.name.partition(".")[0]: read_record(path) for path in sorted(folder.glob("*.provenance.json"))}
    records = {stage: record for stage, record in found.items() if not files.keys().isdisjoint(record["outputs"])}
    for name, path in files.items():
        if not any(name in record["outputs"] for record in records.values()):
            raise UserError(f"{verified(path)}: no stage's record lists it; delete it and run its stage again")
        verified(path)
    return records


def _machine(record: Mapping[str, Any]) -> str:
    """Machine of a stage, with the GPU if it used one."""
    machine: str = record["machine"]
    return machine if record["device"] == "cpu" else f"{record['device']}; {machine}"


def _planned(parcel: Parcel, replace: bool) -> tuple[Parcel | None, str]:
    """What to write, if its folder does not have the same numbers, and what to say when that is done.

    Raises:
        UserError: when the folder has other numbers, unless they are to be replaced.
    """
    there = parcel.folder / PUBLISHED_RECORD
    if not there.exists():
        return parcel, f"{parcel.folder}: published"
    published = read_record(there)
    lines = [*_differences(parcel.folder / METRICS, parcel.files[METRICS]), *_measured_again(parcel, published)]
    for line in lines:
        console.print(f"{parcel.folder}: {line}")
    if lines and not replace:
        raise UserError(
            f"{parcel.folder}: published with other numbers, by {_origin(published)}{_changed(parcel)}; these are by "
            f"{_origin({'machine': parcel.machine, **parcel.records})}; use --replace to replace them"
        )
    new = parcel.files.keys() - published["outputs"].keys()
    gone = ", ".join(sorted(published["outputs"].keys() - parcel.files.keys()))
    if gone and (lines or new) and not replace:
        raise UserError(
            f"{parcel.folder}: has {gone}, which this run lacks and which would be lost; measure that too, or use "
            "--replace to remove it"
        )
    if not lines and not new:
        return None, f"{parcel.folder}: has the same numbers, by {_origin(published)}; unchanged"
    removed = f"; removed {gone}" if gone else ""
    return parcel, f"{parcel.folder}: {'replaced' if lines else 'added ' + ', '.join(sorted(new))}{removed}"


def _differences(published: Path, made: Path) -> Iterator[str]:
    """Yield one line for each test metric that differs between two metrics files."""
    old, new = (dict(_numbers(read_json(path))) for path in (published, made))
    for name in (name for name in old if name in new and not name.startswith("valid")):
        if old[name] != new[name]:
            yield f"{name} {old[name]:.6g}, now {new[name]:.6g} ({new[name] - old[name]:+.6g})"


def _measured_again(parcel: Parcel, published: Mapping[str, Any]) -> Iterator[str]:
    """Yield one line for each other measurement that differs, times apart."""
    for name in (name for name in MEASURED if name in parcel.files and name in published["outputs"]):
        old, new = parcel.folder / name, parcel.files[name]
        if name.endswith(".parquet"):
            same = read_table(old).equals(read_table(new))
        else:
            same = _without_times(old) == _without_times(new)
        if not same:
            yield f"{name} has other numbers"


def _without_times(path: Path) -> dict[str, float]:
    return {key: number for key, number in _numbers(read_json(path)) if "seconds" not in key}


def _numbers(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """Yield the path and value of every number in a JSON value."""
    match value:
        case dict():
            for key, part in value.items():
                yield from _numbers(part, f"{name} {key}".strip())
        case list():
            for index, part in enumerate(value):
                yield from _numbers(part, f"{name}[{index}]")
        case int() | float():
            yield name, value


def _origin(published: Mapping[str, Any]) -> str:
    """Revision and machine in a provenance.json."""
    first = published.get("train") or published["baselines"]
    return f"revision {first['revision']} on {published['machine']}"


def _changed(parcel: Parcel) -> str:
    """Difference between the parameters of a published run and those of the parcel, in words."""
    if RECORD_FILE not in parcel.files:
        return ""
    old, new = read_json(parcel.folder / RECORD_FILE), read_json(parcel.files[RECORD_FILE])
    difference = first_difference(old, new)
    return f" with {difference}" if difference else " with the same parameters"


def published_faults() -> Iterator[str]:
    """Yield one line for each inconsistency of the published runs, besides changed files."""
    for path in sorted(PUBLISHED.results.rglob(RECORD_FILE)):
        folder = path.parent
        if not (folder / PUBLISHED_RECORD).exists():
            name = quote(str(folder.relative_to(PUBLISHED.results)))
            yield f"{folder}: has no {PUBLISHED_RECORD}; publish the run again: apao publish {name}"
            continue
        try:
            yield from _published_faults(Run.parse(str(folder.relative_to(PUBLISHED.results))), folder)
        except UserError as error:
            yield str(error)
        except (LookupError, TypeError, AttributeError) as error:
            yield (
                f"{folder}: its files are not in the form that apao publish writes ({type(error).__name__}: {error}); "
                f"restore them (git checkout -- {quote(str(folder))}), or publish the run again"
            )


def _published_faults(run: Run, folder: Path) -> Iterator[str]:
    provenance = read_json(folder / PUBLISHED_RECORD)
    records = {stage: record for stage, record in provenance.items() if isinstance(record, dict) and "digest" in record}
    for stage, record in records.items():
        if not is_intact(record):
            yield f"{folder / PUBLISHED_RECORD}: the record of {stage} does not match the hash inside"
    stated = {name: hash_ for record in records.values() for name, hash_ in record["outputs"].items()}
    for name, hash_ in provenance["outputs"].items():
        if stated.get(name, hash_) != hash_:
            yield f"{folder / name}: is not the file that its stage wrote"
    for path in sorted(folder.iterdir()):
        if path.name not in {*provenance["outputs"], PUBLISHED_RECORD}:
            yield f"{path}: not listed in {PUBLISHED_RECORD}"
    yield from _run_faults(run, folder, records)


def _run_faults(run: Run, folder: Path, records: Records) -> Iterator[str]:
    """Yield one line for each disagreement between the files of a run and the records of their stages."""
    if missing := {"train", "evaluate"} - records.keys():
        yield f"{folder}: has no record of {' and '.join(sorted(missing))}"
        return
    record, trained = read_json(folder / RECORD_FILE), records["train"]
    # The training also reads the item table, which is not in run.json.
    inputs = {path: trained["inputs"].get(path) for path in record["inputs"]}
    if record != {"run": str(run), **trained["params"], "inputs": inputs}:
        yield f"{folder / RECORD_FILE}: has another run, parameters or inputs than the record of its training"
    for stage, stage_record in records.items():
        weights = stage_record["inputs"].get(str(run.model))
        if weights not in (None, trained["outputs"][MODEL_FILE]):
            yield f"{folder}: {stage} read other weights than the training wrote; run that stage again"
        for path in sorted(trained["inputs"].keys() & stage_record["inputs"].keys()):
            if stage_record["inputs"][path] != trained["inputs"][path]:
                yield f"{folder}: {stage} read another {path} than the training; run that stage again"
    metrics, ranks = read_json(folder / METRICS), read_table(folder / "ranks.parquet", what="table of ranks")
    for split in ("valid", "test"):
        for name, values in user_metrics(ranks[ranks["split"] == split]).items():
            if not math.isclose(metrics[split][name], values.mean(), abs_tol=1e-9):
                yield f"{folder / METRICS}: {split} {name} is not that of ranks.parquet"
