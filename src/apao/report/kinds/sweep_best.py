"""Table 5: the best value of each swept hyper-parameter, chosen on the validation items."""

from __future__ import annotations

import math

import pandas as pd

from apao.report.paper import NAN, coverage, printed
from apao.report.render import ABSENT, Cell, Grid, Table, spread
from apao.report.results import Results, origin, seeds_sentence
from apao.report.sweeps import METRIC, STRICT, points, ranges, symbol
from apao.study.runs import Run, format_value
from apao.study.studies import Curve, Table5

PAPER_KEYS = ("beta", "eta")
"""What the paper's Table 5 lists."""
HEADER = [
    *(("", name) for name in ("Dataset", "Backbone", "Objective", "Swept")),
    *(("Best value", name) for name in ("ours", "paper")),
    *(("NDCG@10 there", name) for name in ("valid", "test", "test, item level")),
]
MEASURED = (f"valid_{METRIC}", f"test_{METRIC}", f"test_{STRICT}")
COLUMNS = [
    *("dataset", "backbone", "objective", "key", "value", "paper", "seeds"),
    *(f"{name}{suffix}" for name in MEASURED for suffix in ("", "_sd")),
]


def build(study: Table5, results: Results) -> Table:
    """The table of a study."""
    grid = Grid("", 4, HEADER)
    rows: list[tuple[object, ...]] = []
    previous = Curve("", "", "", "", ())
    for curve in study.curves():
        # The first of equal ones, so the smallest value.
        best = max(points(study, results, curve), key=lambda point: point.validation.mean)
        place = {"dataset": curve.dataset, "backbone": curve.backbone, "objective": curve.objective}
        # The paper does not say with which form of the weights it swept.
        named = Run.of(curve.dataset, curve.backbone, curve.objective, 0).objective
        paper = printed("table5", curve.key, **{**place, "objective": named}) if curve.key in PAPER_KEYS else NAN
        scores = (best.validation, best.test, best.strict)
        numbers = [number for score in scores for number in (score.mean, score.sd)]
        rows.append((*place.values(), curve.key, best.value, paper, " ".join(map(str, study.seeds)), *numbers))
        if (curve.dataset, curve.backbone) != (previous.dataset, previous.backbone):
            grid.parts.append([])
        same = grid.parts[-1] and curve.objective == previous.objective
        grid.parts[-1].append(
            [
                *(Cell("" if grid.parts[-1] else name) for name in (curve.dataset, curve.backbone)),
                *(Cell("" if same else curve.objective), Cell(symbol(curve.key))),
                *(Cell(ABSENT if math.isnan(value) else format_value(value)) for value in (best.value, paper)),
                *(Cell(spread(score.mean, score.sd)) for score in scores),
            ]
        )
        previous = curve
    notes = [
        origin(results.scale, [results.normalised(run) for run in study.runs()], study.objectives),
        f"Each sweep changes one value and keeps the objective's others: {ranges(study)}. The best has the highest "
        "NDCG@10 on the validation items (code level: a hit is the target's code, as the paper counts; item level, "
        "strict: the items of one code share its rank in expectation). " + seeds_sentence(study.seeds, "± is"),
        coverage(study.datasets),
    ]
    return Table(
        "Best value of each swept hyper-parameter",
        pd.DataFrame(rows, columns=COLUMNS),
        [grid],
        [note for note in notes if note],
    )
