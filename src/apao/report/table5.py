"""Table 5: the best beta and eta of each sweep, chosen on the validation items."""

from __future__ import annotations

import math

import pandas as pd

from apao.report.paper import coverage, printed
from apao.report.render import ABSENT, Cell, Grid, Table, spread
from apao.report.results import Results, origin, seeds_sentence
from apao.report.sweeps import METRIC, SYMBOLS, curve, curves, swept_keys
from apao.runs import format_value
from apao.studies import Table5

COLUMNS = ["dataset", "backbone", "objective", "key", "value", "paper", "seeds"]


def build(study: Table5, results: Results) -> Table:
    """The table of a study."""
    keys = swept_keys(study)
    names = [(f"Best {SYMBOLS[key]}", name) for key in keys for name in ("ours", "paper", "valid N@10", "test N@10")]
    grid = Grid("", 3, [("", "Dataset"), ("", "Backbone"), ("", "Objective"), *names], [[]])
    rows = []
    for dataset, backbone, objective in curves(study):
        cells = [Cell(dataset), Cell(backbone), Cell(objective)]
        for key in keys:
            # The first of equal ones, so the smallest value.
            points = curve(study, results, dataset, backbone, objective, key)
            best = max(points, key=lambda point: point.validation.mean)
            paper = printed("table5", key, dataset=dataset, backbone=backbone, objective=objective)
            seeds = " ".join(map(str, study.seeds))
            scores = (best.validation.mean, best.validation.sd, best.test.mean, best.test.sd)
            rows.append((dataset, backbone, objective, key, best.value, paper, seeds, *scores))
            cells += [Cell(format_value(best.value)), Cell(ABSENT if math.isnan(paper) else format_value(paper))]
            cells += [Cell(spread(one.mean, one.sd)) for one in (best.validation, best.test)]
        grid.parts[0].append(cells)
    values = "; ".join(f"{SYMBOLS[key]} in {', '.join(map(format_value, getattr(study, key)))}" for key in keys)
    notes = [
        origin(results.scale, [results.normalised(run) for run in study.runs()], study.objectives),
        f"Each sweep changes one of {values}, and keeps the objective's other values. "
        "The best has the highest NDCG@10 on the validation items (code level). " + seeds_sentence(study.seeds, "± is"),
        coverage(study.datasets),
    ]
    measured = [f"{split}_{METRIC}{suffix}" for split in ("valid", "test") for suffix in ("", "_sd")]
    return Table(
        "Best β and η of each sweep",
        pd.DataFrame(rows, columns=[*COLUMNS, *measured]),
        [grid],
        [note for note in notes if note],
    )
