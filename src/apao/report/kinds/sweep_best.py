"""A table of the best value of each swept hyper-parameter, chosen on the validation items."""

from __future__ import annotations

import math
from itertools import groupby
from typing import Literal

import pandas as pd
from typing_extensions import override

from apao.evaluation.metrics import ITEM_LEVEL, metric_title
from apao.report.base import TableStudy
from apao.report.paper import coverage, printed
from apao.report.render import ABSENT, Cell, Grid, Table, spread
from apao.report.results import Results, seeds_of
from apao.report.sweeps import Point, best_point, ranges, symbol
from apao.study.runs import Run, format_value
from apao.study.studies import STUDIES
from apao.study.sweeps import Curve, SweepStudy


@STUDIES.register
class SweepBest(SweepStudy, TableStudy):
    """The best value of each sweep on the validation items (the paper's Table 5)."""

    kind: Literal["sweep-best"]

    @override
    def build(self, results: Results) -> Table:
        title = metric_title(self.metric)
        grid = Grid("", 4, [("", name) for name in ("Dataset", "Backbone", "Objective", "Swept")])
        grid.header += [("Best value", name) for name in ("ours", "paper")]
        grid.header += [(f"{title} there", name) for name in ("valid", "test", "test, item level")]
        rows: list[tuple[object, ...]] = []
        for model, curves in groupby(self.curves(), key=lambda curve: (curve.dataset, curve.backbone)):
            part: list[list[Cell]] = []
            for objective, of_objective in groupby(curves, key=lambda curve: curve.objective):
                for i, curve in enumerate(of_objective):
                    best, paper = best_point(self, results, curve), _paper(curve)
                    rows.append(self._long(curve, best, paper))
                    names = (*(("", "") if part else model), "" if i else objective)
                    part.append([*map(Cell, names), *_cells(curve.key, best, paper)])
            grid.parts.append(part)
        notes = [
            results.origin(self, self.objectives),
            f"Each sweep changes one value and keeps the objective's others: {ranges(self)}. The best value has the "
            f"highest {title} on the validation items (code level: a hit is the target's code, as in the paper; item "
            "level, strict: the items of one code share its rank in expectation). "
            + results.seeds_sentence(self, self.seeds),
            coverage(self.datasets),
        ]
        long = pd.DataFrame(rows, columns=self._columns())
        return Table("Best value of each swept hyper-parameter", long, [grid], notes)

    def _columns(self) -> list[str]:
        measured = (f"valid_{self.metric}", f"test_{self.metric}", f"test_{ITEM_LEVEL}{self.metric}")
        return [
            *("dataset", "backbone", "objective", "key", "value", "paper", "seeds"),
            *(f"{name}{suffix}" for name in measured for suffix in ("", "_sd")),
        ]

    def _long(self, curve: Curve, best: Point, paper: float) -> tuple[object, ...]:
        scores = (best.validation, best.test, best.strict)
        return (
            *(curve.dataset, curve.backbone, curve.objective, curve.key, best.value, paper, seeds_of(best.runs)),
            *(number for score in scores for number in (score.mean, score.sd)),
        )


def _cells(key: str, best: Point, paper: float) -> list[Cell]:
    """What follows the names of a row."""
    values = (ABSENT if math.isnan(value) else format_value(value) for value in (best.value, paper))
    scores = (spread(score.mean, score.sd) for score in (best.validation, best.test, best.strict))
    return [Cell(text) for text in (symbol(key), *values, *scores)]


def _paper(curve: Curve) -> float:
    # The paper does not state which form of the weights its sweeps used.
    objective = Run.of(curve.dataset, curve.backbone, curve.objective, 0).objective
    return printed("table5", curve.key, dataset=curve.dataset, backbone=curve.backbone, objective=objective)
