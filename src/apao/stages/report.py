"""The stage ``report``: one table or figure of the chosen scale."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from apao.errors import UserError
from apao.files import read_json, verified
from apao.progress import console
from apao.report.results import Results
from apao.stages.record import Stage
from apao.study.paths import OWN, Collection
from apao.study.run_params import RunParams, RunRecord, first_difference
from apao.study.runs import Run
from apao.study.studies import Study

if TYPE_CHECKING:
    from apao.study.params import Params

DECODED = ("metrics.json", "exact.json", "pruning.json")
"""Files of a run that say how it was decoded."""
NAMED_FILES = 12
"""Missing files that an error lists by name."""


def inputs(name: str, params: Params, collection: Collection = OWN) -> list[Path]:
    """All files that the study reads, in a fixed order, without repeats; only existing ones if gaps are allowed."""
    study = params.study(name)
    files = [
        path
        for run in _runs(study, params, collection)
        for path in (run.record, *(run.folder / file for file in (*collection.records, *study.files)))
    ]
    placed = [collection.place(path) for path in dict.fromkeys([*files, *study.inputs()])]
    return [path for path in placed if not collection.gaps or path.exists()]


def _runs(study: Study, params: Params, collection: Collection) -> list[Run]:
    """The runs of a study, without repeats; only existing ones if gaps are allowed."""
    runs = dict.fromkeys(params.normalised(run) for run in study.runs())
    return [run for run in runs if not collection.gaps or collection.has(run, study.files)]


def missing(name: str, params: Params) -> list[Path]:
    """The study's inputs that do not exist."""
    return [path for path in inputs(name, params) if not path.exists()]


def report(name: str, params: Params, collection: Collection = OWN) -> list[Path]:
    """Draw the table or figure ``name`` from exactly the files that its study lists.

    In a collection that allows gaps, missing runs are left out and named.

    Tables are written as csv (long form), md, html and tex (wide form), figures as pdf, png, csv (the plotted
    numbers) and rst (the caption), with a provenance file.

    Returns:
        The files that were written.

    Raises:
        UserError: when inputs are missing; names them and the command that builds them. Nothing is then drawn.
    """
    study = params.study(name)
    written = study.outputs(name, collection)
    if not collection.gaps and (absent := missing(name, params)):
        shown = [str(path) for path in absent[:NAMED_FILES]]
        if len(absent) > NAMED_FILES:
            shown.append(f"and {len(absent) - NAMED_FILES} more")
        raise UserError(
            f"{name}: {len(absent)} of its {len(inputs(name, params))} input files are missing: "
            f"{', '.join(shown)}. Build them and it with: snakemake -c2 {written[0]} --config scale={params.scale}"
        )
    record = {"scale": params.scale, "study": study.model_dump(mode="json")}
    if otherwise := _trained_otherwise(study, params, collection):
        run, difference = next(iter(otherwise.items()))
        more = f" (likewise {len(otherwise) - 1} more)" if len(otherwise) > 1 else ""
        console.print(f"{name}: {run} was made with {difference} as in params.yaml{more}; drawn as it is")
        record["trained_otherwise"] = otherwise
    with Stage(name, written[0].parent, inputs(name, params, collection), record) as stage:
        study.write(name, params, stage.output, collection)
    if gaps := Results(params, collection, study.files).absent(study):
        console.print(f"{name}: drawn without runs that are not published: {'; '.join(gaps)}")
    return written


def _trained_otherwise(study: Study, params: Params, collection: Collection) -> dict[str, str]:
    """The first difference between a run's files and params.yaml, for each run that has one."""
    differences = {str(run): _difference(run, study, params, collection) for run in _runs(study, params, collection)}
    return {run: difference for run, difference in differences.items() if difference is not None}


def _difference(run: Run, study: Study, params: Params, collection: Collection) -> str | None:
    try:
        record = RunRecord.at(collection.place(run.record), run)
    except UserError:
        if not collection.gaps:
            raise
        # Published by a revision whose parameters this one cannot read. Its files are verified like all others.
        return "parameters of another revision, not those"
    resolved = params.resolve(run)
    difference = record.difference(resolved)
    for name in DECODED:
        if difference is None and name in study.files:
            difference = _decoded_otherwise(collection.place(run.folder / name), resolved)
    return difference


def _decoded_otherwise(path: Path, params: RunParams) -> str | None:
    """The first difference between the decoding that a file names and params.yaml; None without the file."""
    if not path.exists():
        return None
    beam, found = params.decoding.beam, read_json(verified(path))
    # Files have the number of codes in place of "all".
    stated = {"eos": params.decodes_eos} | ({} if beam == "all" else {"beam": beam})
    return first_difference({key: found.get(key, stated[key]) for key in stated}, stated)
