"""Table 3: objectives trained at once against those that start from a trained model."""

from __future__ import annotations

import pandas as pd

from apao.report.paper import coverage, printed
from apao.report.render import Cell, Grid, Table, bold_best, compared
from apao.report.results import Results, origin, seeds_sentence
from apao.studies import Table3

METRIC = "ndcg@10"
COLUMNS = ["stages", "objective", "dataset", "backbone", "metric", "value", "sd", "seeds", "paper", "difference"]


def build(study: Table3, results: Results) -> Table:
    """The table of a study."""
    places = [(dataset, backbone) for dataset in study.datasets for backbone in study.backbones]
    names = [(f"{d}, {b}", name) for d, b in places for name in ("ours", "paper", "difference")]
    grid = Grid("", 2, [("", "Stages"), ("", "Objective"), *names])
    rows: list[tuple[object, ...]] = []
    cells: list[list[Cell]] = []
    means: list[list[float]] = []
    for stages, objectives in (("1", study.one_stage), ("2", study.two_stage)):
        part = []
        for i, objective in enumerate(objectives):
            part.append([Cell(("one" if stages == "1" else "two") if i == 0 else ""), Cell(objective)])
            means.append([])
            for dataset, backbone in places:
                runs = results.experiment(dataset, backbone, objective, study.seeds)
                score = results.metric(runs, "test", METRIC)
                keys = {"stages": stages, "objective": objective, "dataset": dataset, "backbone": backbone}
                paper = printed("table3", METRIC, **keys)
                seeds = " ".join(map(str, study.seeds))
                rows.append((*keys.values(), METRIC, score.mean, score.sd, seeds, paper, score.mean - paper))
                part[-1] += compared(score.mean, score.sd, paper)
                means[-1].append(score.mean)
        if part:
            grid.parts.append(part)
            cells += part
    bold_best(cells, range(2, 2 + 3 * len(places), 3), means)
    notes = [
        origin(results.scale, [results.normalised(run) for run in study.runs()]),
        "NDCG@10 on the test items, code level. Bold: the best of a column. " + seeds_sentence(study.seeds, "± is"),
        "" if study.two_stage else "This scale trains no two-stage objective.",
        "" if study.one_stage else "This scale trains no one-stage objective.",
        coverage(study.datasets),
    ]
    return Table(
        "One training stage against two (NDCG@10)",
        pd.DataFrame(rows, columns=COLUMNS),
        [grid],
        [note for note in notes if note],
    )
