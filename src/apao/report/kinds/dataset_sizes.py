"""Table 2: sizes of the datasets."""

from __future__ import annotations

import pandas as pd

from apao.report.paper import NAN, coverage, printed
from apao.report.render import Cell, Grid, Table, compared
from apao.report.results import Results, number
from apao.study.paths import DatasetPaths
from apao.study.studies import Table2

SIZES = {"users": 0, "items": 0, "interactions": 0, "density_percent": 2}
"""Quantity to the decimals that the paper prints."""


def build(study: Table2, results: Results) -> Table:
    """The table of a study."""
    names = [(quantity, name) for quantity in ("Users", "Items", "Interactions", "Density, %") for name in _COMPARED]
    grid = Grid("", 1, [("", "Dataset"), *names])
    rows, part = [], []
    for dataset in study.datasets:
        path = DatasetPaths(dataset).stats
        part.append([Cell(dataset)])
        for quantity, digits in SIZES.items():
            value = number(path, results.json(path), quantity)
            paper = printed("table2", quantity, dataset=dataset)
            # A density is printed with two decimals; ours is compared as it would be printed.
            difference = round(value, digits) - paper
            rows.append((dataset, quantity, value, paper, difference))
            part[-1] += compared(round(value, digits), NAN, paper, digits)
    grid.parts.append(part)
    notes = [
        f"Scale {results.scale}; dataset{'s' if len(study.datasets) > 1 else ''} {', '.join(study.datasets)}. "
        "Density: interactions in percent of users times items.",
        coverage(study.datasets),
    ]
    return Table(
        "Sizes of the datasets",
        pd.DataFrame(rows, columns=["dataset", "quantity", "value", "paper", "difference"]),
        [grid],
        [note for note in notes if note],
    )


_COMPARED = ("ours", "paper", "difference")
