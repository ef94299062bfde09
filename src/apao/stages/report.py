"""The stage ``report``: one table or figure of the chosen scale."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from apao.errors import UserError, nearest
from apao.progress import console
from apao.report.results import Results
from apao.stages.record import Stage
from apao.study.paths import DatasetPaths
from apao.study.run_params import RunRecord
from apao.study.runs import Run
from apao.study.studies import Study, Table1, Table2, outputs

if TYPE_CHECKING:
    from apao.report.render import Table
    from apao.report.style import Drawing
    from apao.study.params import Params

NAMED_FILES = 12
"""Missing files that an error lists by name."""


def chosen_study(name: str, params: Params) -> Study:
    """The study called ``name`` at the chosen scale.

    Raises:
        UserError: when that scale has none.
    """
    studies = params.study.chosen()
    if name not in studies:
        raise UserError(f"studies.{params.scale} has no table or figure {name!r}; {nearest(name, studies)}")
    return studies[name]


def inputs(name: str, params: Params) -> list[Path]:
    """Every file that the study reads, in a fixed order, without repeats."""
    study = chosen_study(name, params)
    files = [
        path for run in _runs(study, params) for path in (run.record, *(run.folder / file for file in study.files))
    ]
    datasets = [DatasetPaths(dataset) for dataset in study.dataset_names()]
    match study:
        case Table1():
            files += [paths.baselines for paths in datasets]
        case Table2():
            files += [paths.stats for paths in datasets]
    return list(dict.fromkeys([*files, *study.inputs()]))


def _runs(study: Study, params: Params) -> list[Run]:
    """The runs that are trained for a study, without repeats."""
    return list(dict.fromkeys(params.normalised(run) for run in study.runs()))


def missing(name: str, params: Params) -> list[Path]:
    """Those of the study's inputs that have not been made."""
    return [path for path in inputs(name, params) if not path.exists()]


def report(study: str, params: Params) -> list[Path]:
    """Make the table or figure called ``study`` from the files its study lists, and from no others.

    Tables are written as csv (long form), md and tex (wide form), figures as pdf, png, csv (the plotted
    numbers) and rst (the caption), beside a provenance file.

    Returns:
        The files that were written.

    Raises:
        UserError: when inputs have not been made, naming them and how to make them; nothing is then drawn.
    """
    chosen = chosen_study(study, params)
    written = outputs(study)
    if absent := missing(study, params):
        shown = [str(path) for path in absent[:NAMED_FILES]]
        if len(absent) > NAMED_FILES:
            shown.append(f"and {len(absent) - NAMED_FILES} more")
        raise UserError(
            f"{study}: {len(absent)} of the {len(inputs(study, params))} files it is made from are not there: "
            f"{', '.join(shown)}. Make them and it with: snakemake -c2 --config scale={params.scale} {written[0]}"
        )
    record = {"scale": params.scale, "study": chosen.model_dump(mode="json")}
    if otherwise := _trained_otherwise(chosen, params):
        run, difference = next(iter(otherwise.items()))
        more = f" (likewise {len(otherwise) - 1} more)" if len(otherwise) > 1 else ""
        console.print(f"{study}: {run} was trained with {difference} as in params.yaml{more}; drawn as trained")
        record["trained_otherwise"] = otherwise
    with Stage(study, written[0].parent, inputs(study, params), record) as stage:
        results = Results(params)
        if study.startswith("table"):
            _write_table(stage, study, _module(study).build(chosen, results))
        else:
            _write_figure(stage, study, chosen, results)
    return written


def _trained_otherwise(study: Study, params: Params) -> dict[str, str]:
    """For each run whose run.json has other parameters than params.yaml states, the first of them."""
    differences = {str(run): RunRecord.read(run).difference(params.resolve(run)) for run in _runs(study, params)}
    return {run: difference for run, difference in differences.items() if difference is not None}


def _module(name: str) -> ModuleType:
    """The module that builds this table or figure. The others, with scipy or Matplotlib, take seconds to import."""
    return import_module(f"apao.report.{name}")


def _write_table(stage: Stage, name: str, table: Table) -> None:
    from apao.report.render import latex, markdown

    with stage.output(f"{name}.csv") as path:
        table.long.to_csv(path, index=False, lineterminator="\n")
    with stage.output(f"{name}.md") as path:
        path.write_text(markdown(table, name.replace("table", "Table ")), encoding="utf-8")
    with stage.output(f"{name}.tex") as path:
        path.write_text(latex(table, name), encoding="utf-8")


def _write_figure(stage: Stage, name: str, study: Study, results: Results) -> None:
    from apao.report import style

    with style.applied():
        drawing: Drawing = _module(name).build(study, results)
        with stage.output(f"{name}.pdf") as path:
            style.save_pdf(drawing.figure, path)
        with stage.output(f"{name}.png") as path:
            style.save_png(drawing.figure, path)
    with stage.output(f"{name}.csv") as path:
        drawing.numbers.to_csv(path, index=False, lineterminator="\n")
    with stage.output(f"{name}.rst") as path:
        path.write_text(rst_text(drawing.caption) + "\n", encoding="utf-8")


def rst_text(text: str) -> str:
    """Escape for a paragraph of reStructuredText, which snakemake also reads as a Jinja template."""
    return re.sub(r"([\\*_`|{}%#])", r"\\\1", text)
