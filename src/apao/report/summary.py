"""The headline table: metrics of the objectives and their ratio to the most-popular baseline."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pandas as pd
from rich.console import Console
from rich.table import Table

from apao.errors import UserError
from apao.evaluation.metrics import CODE_LEVEL, ITEM_LEVEL, metric_names, metric_title
from apao.files import verified
from apao.report.kinds.comparison import NO_BACKBONE, Comparison
from apao.report.results import seed_list

if TYPE_CHECKING:
    from apao.study.params import Params

BASELINE = "most-popular"
CUTOFF = 10


def headline(params: Params) -> str:
    """A short form of the first comparison of the chosen scale, as text.

    Shows metrics and their ratio to those of most-popular. Where items share codes, a second table has the strict
    metrics.

    Raises:
        UserError: when the scale has no comparison, or its CSV is missing or was made from other runs.
    """
    name, study = _first_comparison(params)
    path = study.outputs(name)[0]
    frame = pd.read_csv(verified(path), dtype={"seeds": str})
    values = frame.set_index(["dataset", "backbone", "objective", "metric"])["value"]
    try:
        tables = [table for dataset in study.datasets for table in _dataset_tables(study, dataset, values)]
    except KeyError as error:
        raise UserError(
            f"{path}: has no row {error}; it was made for another scale or other studies. Rerun: "
            f"snakemake -c2 {path} --config scale={params.scale}"
        ) from error
    buffer = io.StringIO()
    console = Console(file=buffer, width=100, color_system=None)
    for table in tables:
        console.print(table)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"


def _first_comparison(params: Params) -> tuple[str, Comparison]:
    for name, study in params.chosen_studies.items():
        if isinstance(study, Comparison):
            return name, study
    raise UserError(f"scale {params.scale} has no study of kind comparison; add one under studies.{params.scale}")


def _dataset_tables(study: Comparison, dataset: str, values: pd.Series[float]) -> list[Table]:
    rows = [("-", BASELINE)] + [(b, o) for b in study.backbones for o in study.objectives]
    title = f"{dataset}, seed{'s' if len(study.seeds) > 1 else ''} {seed_list(study.seeds)}"
    if not _collides(dataset, rows, values):
        return [_table(title, CODE_LEVEL, dataset, rows, values)]
    return [
        _table(f"{title}: a hit is any item of the target's code", CODE_LEVEL, dataset, rows, values),
        _table(f"{title}, strict: a hit is the target itself", ITEM_LEVEL, dataset, rows, values),
    ]


def _table(title: str, level: str, dataset: str, rows: list[tuple[str, str]], values: pd.Series[float]) -> Table:
    metrics = metric_names([CUTOFF], [level])
    table = Table(title=title)
    table.add_column("Backbone")
    table.add_column("Objective")
    for metric in metrics:
        table.add_column(metric_title(metric), justify="right")
        table.add_column(f"x {BASELINE}", justify="right")
    previous = "-"
    for backbone, objective in rows:
        if backbone != previous:
            table.add_section()
        cells = []
        for metric in metrics:
            base = values[dataset, NO_BACKBONE, BASELINE, metric]
            value = _value(dataset, backbone, objective, metric, values)
            cells += [f"{value:.4f}", f"{value / base:.2f}" if base else "-"]
        table.add_row("" if backbone == previous and backbone != "-" else backbone, objective, *cells)
        previous = backbone
    return table


def _value(dataset: str, backbone: str, objective: str, metric: str, values: pd.Series[float]) -> float:
    return float(values[dataset, NO_BACKBONE if backbone == "-" else backbone, objective, metric])


def _collides(dataset: str, rows: list[tuple[str, str]], values: pd.Series[float]) -> bool:
    """Whether items share codes, so that code-level and item-level metrics differ."""
    return any(
        abs(_value(dataset, *row, metric, values) - _value(dataset, *row, strict, values)) > 1e-12
        for row in rows
        for metric, strict in zip(*(metric_names([CUTOFF], [level]) for level in (CODE_LEVEL, ITEM_LEVEL)), strict=True)
    )
