"""The stage ``publish``: the small files of finished runs, kept in the repository under results/published.

A published run is a folder with run.json, metrics.json, ranks.parquet, history.csv, what else was measured, and
provenance.json: the records of the stages that made them, the machine, and a hash of each file. It states what one
revision measured on one machine, and no later revision puts it out of date.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apao.errors import UserError
from apao.evaluation.metrics import user_metrics
from apao.files import (
    atomic_folder,
    atomic_path,
    digest_of,
    json_text,
    read_json,
    read_table,
    sha256_of,
    verified,
    write_json,
)
from apao.progress import console
from apao.study.paths import PUBLISHED, DatasetPaths
from apao.study.run_params import first_difference
from apao.study.runs import Run

REQUIRED = ("run.json", "history.csv", "metrics.json", "ranks.parquet")
MEASURED = ("pruning.json", "beams.json", "exact.json", "lists.parquet")
"""Published where they were made."""
LARGEST_LISTS = 2**20
"""Bytes of a lists.parquet that is published."""
RUN, METRICS, PROVENANCE = "run.json", "metrics.json", "provenance.json"
Records = Mapping[str, Mapping[str, Any]]
"""What the stages recorded, by stage."""


@dataclass(frozen=True)
class Parcel:
    """What is to be published in one folder."""

    folder: Path
    """In results/published."""
    files: Mapping[str, Path]
    """Name to where the file is now."""
    records: Records
    machine: str

    def write(self) -> None:
        """Put all files into the folder at once."""
        with atomic_folder(self.folder) as folder:
            for name, path in self.files.items():
                with atomic_path(folder / name) as temporary:
                    shutil.copyfile(path, temporary)
            outputs = {name: sha256_of(folder / name) for name in self.files}
            record = {"stage": "publish", "machine": self.machine, **self.records, "outputs": outputs}
            write_json(folder / PROVENANCE, record | {"digest": digest_of(json.loads(json_text(record)))})


def publish(names: Sequence[str], source: Path, replace: bool = False, machine: str | None = None) -> None:
    """Publish finished runs of the study in the folder ``source``.

    All are checked before the first is written. A run that is published already is compared with what is there:
    the same numbers leave it as it is, but for measurements that are new.

    Args:
        names: trained and evaluated runs, and ``dataset/baselines`` for the untrained baselines of a dataset.
        source: the folder that holds ``results``.
        replace: also where the published numbers are others.
        machine: what made the runs, where their records do not name it.

    Raises:
        UserError: for a run that is unfinished or damaged, or published with other numbers.
    """
    parcels = [_parcel(name, source, machine) for name in names]
    for parcel in parcels:
        _put(parcel, replace)


def _parcel(name: str, source: Path, machine: str | None) -> Parcel:
    dataset, _, what = name.removeprefix("results/").rstrip("/").partition("/")
    return _baselines(dataset, source, machine) if what == "baselines" else _run(Run.parse(name), source, machine)


def _run(run: Run, source: Path, machine: str | None) -> Parcel:
    """Raises UserError where the run is unfinished or damaged."""
    folder = source / run.folder
    files = {name: folder / name for name in REQUIRED}
    for path in files.values():
        if not path.exists():
            raise UserError(
                f"{path}: not found, so the run is not finished; make it: snakemake -c2 {run.folder / METRICS}"
            )
    files |= {name: folder / name for name in MEASURED if _is_published(folder / name)}
    records = _records(files)
    if faults := list(_run_faults(run, folder, records)):
        raise UserError(faults[0])
    return Parcel(PUBLISHED.place(run.folder), files, records, _machine(folder, records["train"], machine))


def _is_published(path: Path) -> bool:
    return path.exists() and (path.suffix == ".json" or path.stat().st_size <= LARGEST_LISTS)


def _baselines(dataset: str, source: Path, machine: str | None) -> Parcel:
    path = DatasetPaths(dataset, source).baselines
    records = _records({METRICS: path})
    folder = PUBLISHED.place(DatasetPaths(dataset).baselines).parent
    return Parcel(folder, {METRICS: path}, records, _machine(path.parent, records["baselines"], machine))


def _records(files: Mapping[str, Path]) -> dict[str, Any]:
    """The records of the stages that made the files, which all lie in one folder.

    Raises:
        UserError: when one of them is damaged, or listed by no record.
    """
    folder = next(iter(files.values())).parent
    found = {path.name.partition(".")[0]: read_json(path) for path in sorted(folder.glob("*.provenance.json"))}
    records = {stage: record for stage, record in found.items() if not files.keys().isdisjoint(record["outputs"])}
    for name, path in files.items():
        # Older revisions did not list run.json; what is in it stands in the record of the training, too.
        if name != RUN and not any(name in record["outputs"] for record in records.values()):
            raise UserError(f"{verified(path)}: no stage's record lists it; delete it and run its stage again")
        verified(path)
    return records


def _machine(folder: Path, record: Mapping[str, Any], given: str | None) -> str:
    """The machine of a stage, with its GPU where it used one."""
    machine = record.get("machine", given)
    if machine is None:
        raise UserError(f"{folder}: its records name no machine; say what made it: --machine 'AMD EPYC, 2 cores'")
    return machine if record["device"] == "cpu" else f"{record['device']}; {machine}"


def _put(parcel: Parcel, replace: bool) -> None:
    """Write a parcel, unless its folder holds the same or, without ``replace``, other numbers."""
    there = parcel.folder / PROVENANCE
    if not there.exists():
        parcel.write()
        console.print(f"{parcel.folder}: published")
        return
    published = read_json(there)
    lines = list(_differences(parcel.folder / METRICS, parcel.files[METRICS]))
    for line in lines:
        console.print(f"{parcel.folder}: {line}")
    if lines and not replace:
        raise UserError(
            f"{parcel.folder}: published with other numbers, by {_origin(published)}{_changed(parcel)}; these are by "
            f"{_origin({'machine': parcel.machine, **parcel.records})}; give --replace to replace them"
        )
    new = parcel.files.keys() - published["outputs"].keys()
    if not lines and not new:
        console.print(f"{parcel.folder}: has the same numbers, by {_origin(published)}; left as it is")
        return
    parcel.write()
    console.print(f"{parcel.folder}: {'replaced' if lines else 'added ' + ', '.join(sorted(new))}")


def _differences(published: Path, made: Path) -> Iterator[str]:
    """A line for each number of two files of metrics that differs, but for those of the validation items."""
    old, new = (dict(_numbers(read_json(path))) for path in (published, made))
    for name in (name for name in old if name in new and not name.startswith("valid")):
        if old[name] != new[name]:
            yield f"{name} {old[name]:.6g}, now {new[name]:.6g} ({new[name] - old[name]:+.6g})"


def _numbers(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """Every number in a JSON value with its path."""
    match value:
        case dict():
            for key, part in value.items():
                yield from _numbers(part, f"{name} {key}".strip())
        case list():
            for place, part in enumerate(value):
                yield from _numbers(part, f"{name}[{place}]")
        case int() | float():
            yield name, value


def _origin(published: Mapping[str, Any]) -> str:
    """Which revision on which machine made what a provenance.json describes."""
    first = published.get("train") or published["baselines"]
    return f"revision {first['revision']} on {published['machine']}"


def _changed(parcel: Parcel) -> str:
    """How the parameters of a published run differ from those of the parcel."""
    if RUN not in parcel.files:
        return ""
    old, new = read_json(parcel.folder / RUN), read_json(parcel.files[RUN])
    difference = first_difference(old, new)
    return f" with {difference}" if difference else " with the same parameters"


def published_faults() -> Iterator[str]:
    """What is wrong with published runs beyond the hashes of their files, one line each."""
    for path in sorted(PUBLISHED.results.rglob(RUN)):
        folder = path.parent
        if not (folder / PROVENANCE).exists():
            yield f"{folder}: has no {PROVENANCE}; publish the run again: apao publish"
            continue
        try:
            yield from _published_faults(Run.parse(str(folder.relative_to(PUBLISHED.results))), folder)
        except UserError as error:
            yield str(error)


def _published_faults(run: Run, folder: Path) -> Iterator[str]:
    provenance = read_json(folder / PROVENANCE)
    records = {stage: one for stage, one in provenance.items() if isinstance(one, dict) and "digest" in one}
    for stage, record in records.items():
        if digest_of({key: value for key, value in record.items() if key != "digest"}) != record["digest"]:
            yield f"{folder / PROVENANCE}: the record of {stage} does not match the hash inside"
    stated = {name: hash_ for one in records.values() for name, hash_ in one["outputs"].items()}
    for name, hash_ in provenance["outputs"].items():
        if stated.get(name, hash_) != hash_:
            yield f"{folder / name}: is not the file that its stage made"
    for path in sorted(folder.iterdir()):
        if path.name not in {*provenance["outputs"], PROVENANCE}:
            yield f"{path}: not listed in {PROVENANCE}"
    yield from _run_faults(run, folder, records)


def _run_faults(run: Run, folder: Path, records: Records) -> Iterator[str]:
    """Where the files of a run and the records of their stages disagree."""
    if missing := {"train", "evaluate"} - records.keys():
        yield f"{folder}: has no record of {' and '.join(sorted(missing))}"
        return
    record, trained = read_json(folder / RUN), records["train"]
    if record != {"run": str(run), **trained["params"], "inputs": trained["inputs"]}:
        yield f"{folder / RUN}: states another run, parameters or inputs than the record of its training"
    for stage, one in records.items():
        weights = one["inputs"].get(str(run.model))
        if weights not in (None, trained["outputs"]["model.safetensors"]):
            yield f"{folder}: {stage} read other weights than the training wrote; run that stage again"
    metrics, ranks = read_json(folder / METRICS), read_table(folder / "ranks.parquet", what="table of ranks")
    for split in ("valid", "test"):
        for name, values in user_metrics(ranks[ranks["split"] == split]).items():
            # Older runs lack metrics that were added since.
            if not math.isclose(metrics[split].get(name, values.mean()), values.mean(), abs_tol=1e-9):
                yield f"{folder / METRICS}: {split} {name} is not that of ranks.parquet"
