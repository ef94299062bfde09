"""The headline of a demonstration: what the objectives achieve against the untrained baseline."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pandas as pd
from rich.console import Console
from rich.table import Table

from apao.errors import UserError
from apao.files import verified
from apao.report.table1 import NO_BACKBONE
from apao.stages.report import chosen_study
from apao.study.studies import Table1, outputs

if TYPE_CHECKING:
    from apao.study.params import Params

BASELINE = "most-popular"
CODE_LEVEL = {"recall@10": "Recall@10", "ndcg@10": "NDCG@10"}
ITEM_LEVEL = {"item_recall@10": "Recall@10", "item_ndcg@10": "NDCG@10"}
"""Shown where items share codes."""


def headline(params: Params) -> str:
    """Table 1 in short, as text: Recall@10 and NDCG@10, and their ratio to recommending the most popular.

    Where items share codes a second table has the strict metrics; a ratio is of two values of one metric.

    Raises:
        UserError: when results/tables/table1.csv is missing or was made from other runs than the chosen scale's.
    """
    study = chosen_study("table1", params)
    assert isinstance(study, Table1)
    path = outputs("table1")[0]
    frame = pd.read_csv(verified(path), dtype={"seeds": str})
    values = frame.set_index(["dataset", "backbone", "objective", "metric"])["value"]
    seeds = " ".join(map(str, study.seeds))
    try:
        tables = [table for dataset in study.datasets for table in _dataset_tables(study, dataset, values, seeds)]
    except KeyError as error:
        raise UserError(
            f"{path}: has no row {error}; it was made for another scale or other studies. Make it again with: "
            f"snakemake -c2 --config scale={params.scale} {path}"
        ) from error
    buffer = io.StringIO()
    console = Console(file=buffer, width=100, color_system=None)
    for table in tables:
        console.print(table)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"


def _dataset_tables(study: Table1, dataset: str, values: pd.Series[float], seeds: str) -> list[Table]:
    rows = [("-", BASELINE)] + [(b, o) for b in study.backbones for o in study.objectives]
    title = f"{dataset}, seeds {seeds}" if " " in seeds else f"{dataset}, seed {seeds}"
    if not _collides(dataset, rows, values):
        return [_table(title, CODE_LEVEL, dataset, rows, values)]
    return [
        _table(f"{title}: a hit is any item of the target's code", CODE_LEVEL, dataset, rows, values),
        _table(f"{title}, strict: a hit is the target itself", ITEM_LEVEL, dataset, rows, values),
    ]


def _table(
    title: str, metrics: dict[str, str], dataset: str, rows: list[tuple[str, str]], values: pd.Series[float]
) -> Table:
    table = Table(title=title)
    table.add_column("Backbone")
    table.add_column("Objective")
    for name in metrics.values():
        table.add_column(name, justify="right")
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
    """Whether items share codes, so that a metric differs between codes and items."""
    return any(
        abs(_value(dataset, *row, metric, values) - _value(dataset, *row, strict, values)) > 1e-12
        for row in rows
        for metric, strict in zip(CODE_LEVEL, ITEM_LEVEL, strict=True)
    )
