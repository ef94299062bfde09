"""A table of the sizes of datasets."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import pandas as pd
from typing_extensions import override

from apao.report.base import TableStudy
from apao.report.paper import coverage, printed
from apao.report.render import COMPARED, Cell, Grid, Table, compared
from apao.report.results import Results
from apao.report.values import number
from apao.study.paths import DatasetPaths
from apao.study.runs import Run
from apao.study.studies import STUDIES, Names

SIZES = {"users": 0, "items": 0, "interactions": 0, "density_percent": 2}
"""Quantity to the number of decimals in the paper."""


@STUDIES.register
class DatasetSizes(TableStudy):
    """Users, items, interactions and density of each dataset (the paper's Table 2)."""

    kind: Literal["dataset-sizes"]
    datasets: Names

    @override
    def runs(self) -> list[Run]:
        return []

    @override
    def dataset_names(self) -> tuple[str, ...]:
        return self.datasets

    @override
    def inputs(self) -> list[Path]:
        return [DatasetPaths(dataset).stats for dataset in self.datasets]

    @override
    def build(self, results: Results) -> Table:
        names = [(quantity, name) for quantity in ("Users", "Items", "Interactions", "Density, %") for name in COMPARED]
        grid = Grid("", 1, [("", "Dataset"), *names])
        rows, part = [], []
        absent = []
        for dataset in self.datasets:
            path = DatasetPaths(dataset).stats
            if results.collection.gaps and not path.exists():
                absent.append(dataset)
                continue
            part.append([Cell(dataset)])
            for quantity, digits in SIZES.items():
                value = number(path, results.json(path), quantity)
                paper = printed("table2", quantity, dataset=dataset)
                # The paper prints densities with two decimals; ours is rounded likewise before the comparison.
                difference = round(value, digits) - paper
                rows.append((dataset, quantity, value, paper, difference))
                part[-1] += compared(round(value, digits), math.nan, paper, digits)
        grid.parts.append(part)
        notes = [
            f"Scale {results.scale}; dataset{'s' if len(self.datasets) > 1 else ''} {', '.join(self.datasets)}. "
            "Density: interactions in percent of users times items."
            + (f" Not prepared here, and so left out: {', '.join(absent)}." if absent else ""),
            coverage(self.datasets),
        ]
        columns = ["dataset", "quantity", "value", "paper", "difference"]
        return Table("Sizes of the datasets", pd.DataFrame(rows, columns=columns), [grid], notes)
