"""Table 3: objectives trained at once against those that start from a trained model."""

from __future__ import annotations

import math

import pandas as pd

from apao.evaluation.significance import RESAMPLES
from apao.report import comparisons
from apao.report.comparisons import Experiment, Pair, Verdict, best, corrected, judged
from apao.report.paper import coverage, printed
from apao.report.render import Cell, Grid, Table, bold_best, compared, spread
from apao.report.results import Results, origin, seeds_sentence
from apao.study.studies import Table3

METRIC = "ndcg@10"
"""The paper's."""
METRICS = (METRIC, f"item_{METRIC}")
COLUMNS = (
    *("stages", "objective", "dataset", "backbone", "metric", "value", "sd", "seeds", "paper", "difference"),
    *("best_one_stage", *comparisons.COLUMNS),
)
COMPARED = ("ours", "paper", "difference", "ours, item level")
Place = tuple[str, str]
"""Dataset and backbone."""


def build(study: Table3, results: Results) -> Table:
    """The table of a study."""
    places = [(dataset, backbone) for dataset in study.datasets for backbone in study.backbones]
    objectives = (*study.one_stage, *study.two_stage)
    trained = {
        place: [Experiment.read(results, *place, objective, study.seeds, METRICS) for objective in objectives]
        for place in places
    }
    verdicts = {place: _verdicts(experiments, len(study.one_stage)) for place, experiments in trained.items()}
    rows = [
        row
        for i in range(len(objectives))
        for place in places
        for row in _long(place, _stages(study, i), trained[place][i], verdicts[place])
    ]
    notes = [
        origin(results.scale, [results.normalised(run) for run in study.runs()]),
        "NDCG@10 on the test items. Code level: a hit is the target's code, as the paper counts. Item level, strict: "
        "the items of one code share its rank in expectation. Bold: the best of a column. "
        + seeds_sentence(study.seeds, "± is"),
        _comparison_note(trained) if study.one_stage and len(objectives) > 1 else "",
        "" if study.two_stage else "This scale trains no two-stage objective.",
        "" if study.one_stage else "This scale trains no one-stage objective.",
        coverage(study.datasets),
    ]
    return Table(
        "One training stage against two (NDCG@10)",
        pd.DataFrame(rows, columns=list(COLUMNS)),
        [_grid(study, dataset, trained) for dataset in study.datasets],
        [note for note in notes if note],
    )


def _stages(study: Table3, i: int) -> str:
    """Of the i-th objective, as the paper's numbers name them."""
    return "1" if i < len(study.one_stage) else "2"


def _verdicts(experiments: list[Experiment], one_stage: int) -> dict[tuple[str, str], Verdict]:
    """The best of the first ``one_stage`` against each other; a family of tests is one metric."""

    def best_against(one: Experiment, metric: str) -> Pair | None:
        ours = best(experiments[:one_stage], metric)
        return None if ours is None or ours.runs == one.runs else (ours, one)

    return corrected(judged(experiments, METRICS, best_against), family=lambda key: key[1])


def _comparison_note(trained: dict[Place, list[Experiment]]) -> str:
    users = {dataset: len(experiments[0].users) for (dataset, _), experiments in trained.items()}
    counted = ", ".join(f"{dataset} {count:,}" for dataset, count in users.items())
    return (
        "The CSV compares the best one-stage objective with every other of its column: gain over it, two-sided paired "
        "t-test over users, plain and after Holm's correction for the comparisons of the column, one-sample t-test of "
        "its seeds against the other's mean, and 95 % percentile bootstrap intervals "
        f"({RESAMPLES:,} resamples of the test users). Test users: {counted}."
    )


def _grid(study: Table3, dataset: str, trained: dict[Place, list[Experiment]]) -> Grid:
    grid = Grid(dataset, 2, [("", "Stages"), ("", "Objective")])
    grid.header += [(backbone, name) for backbone in study.backbones for name in COMPARED]
    cells: list[list[Cell]] = []
    means: list[list[float]] = []
    for i, objective in enumerate((*study.one_stage, *study.two_stage)):
        stages = _stages(study, i)
        first = i in (0, len(study.one_stage))
        cells.append([Cell({"1": "one", "2": "two"}[stages] if first else ""), Cell(objective)])
        means.append([])
        for backbone in study.backbones:
            place = (dataset, backbone)
            code, item = (trained[place][i].scores[metric] for metric in METRICS)
            cells[-1] += compared(code.mean, code.sd, _paper(place, stages, objective))
            cells[-1].append(Cell(spread(item.mean, item.sd)))
            means[-1] += [code.mean, item.mean]
    width = len(COMPARED)
    bold_best(cells, [2 + width * i + at for i in range(len(study.backbones)) for at in (0, width - 1)], means)
    parts = [cells[: len(study.one_stage)], cells[len(study.one_stage) :]]
    grid.parts = [part for part in parts if part]
    return grid


def _paper(place: Place, stages: str, objective: str) -> float:
    dataset, backbone = place
    return printed("table3", METRIC, stages=stages, objective=objective, dataset=dataset, backbone=backbone)


def _long(
    place: Place, stages: str, one: Experiment, verdicts: dict[tuple[str, str], Verdict]
) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for metric in METRICS:
        score, verdict = one.scores[metric], verdicts[one.objective, metric]
        paper = _paper(place, stages, one.objective) if metric == METRIC else math.nan
        seeds = " ".join(str(run.seed) for run in one.runs)
        rows.append(
            (
                *(stages, one.objective, *place, metric, score.mean, score.sd, seeds),
                *(paper, score.mean - paper, verdict.other, *verdict.numbers()),
            )
        )
    return rows
