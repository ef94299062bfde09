"""Table 1: objectives x backbones x datasets beside the untrained baselines, and our numbers beside the paper's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from apao.report.paper import coverage, printed
from apao.report.render import Cell, Grid, Table, bold_best, compared, fixed, spread
from apao.report.results import Estimate, Results, number, origin, seeds_sentence
from apao.report.significance import paired_p
from apao.runs import DatasetPaths, Run
from apao.studies import Table1

METRICS = tuple(f"{level}{kind}@{k}" for level in ("", "item_") for kind in ("recall", "ndcg") for k in (5, 10, 20))
SHOWN = ("recall@10", "recall@20", "ndcg@10", "ndcg@20")
"""The paper's columns."""
REFERENCE = "ce"
"""Gains are over this objective."""
NO_BACKBONE = "baseline"
"""What the column ``backbone`` says of an untrained baseline."""
PValues = dict[tuple[str, str], float]
COLUMNS = ("backbone", "objective", "dataset", "metric", "value", "sd", "seeds", "runs", "paper", "difference")


@dataclass(frozen=True)
class Experiment:
    """One row of the table."""

    backbone: str
    objective: str
    scores: dict[str, Estimate]
    runs: tuple[Run, ...] = ()

    def gain(self, reference: Experiment, metric: str) -> float:
        """How much better than ``reference``, in percent of it; NaN where that is 0."""
        base = reference.scores[metric].mean
        return 100 * (self.scores[metric].mean / base - 1) if base else math.nan


def build(study: Table1, results: Results) -> Table:
    """The table of a study."""
    grids, rows = [], []
    for dataset in study.datasets:
        baselines = _baselines(dataset, results)
        trained = {backbone: _trained(study, dataset, backbone, results) for backbone in study.backbones}
        p_values = {backbone: _p_values(experiments, results) for backbone, experiments in trained.items()}
        grids.append(_metrics_grid(dataset, baselines, trained, p_values))
        if not coverage([dataset]):
            grids.append(_paper_grid(dataset, trained))
        rows += [row for one in baselines for row in _long(dataset, one, None, {})]
        for backbone, experiments in trained.items():
            reference = _reference(experiments)
            rows += [row for one in experiments for row in _long(dataset, one, reference, p_values[backbone])]
    notes = [
        origin(results.scale, [results.normalised(run) for run in study.runs()]),
        "Test items. Code level: a hit is the target's code, as the paper counts. Item level, strict: the items of one "
        "code share its rank in expectation. Bold: the best objective of a backbone. "
        + seeds_sentence(study.seeds, "± is"),
    ]
    if REFERENCE in study.objectives and any(map(_shows_gain, study.objectives)):
        notes.append(
            f"Gains are in percent of {REFERENCE}; a star marks p < 0.05 in a paired t-test over users "
            "(code level; a user's metric averaged over the seeds)."
        )
    notes += [sentence] if (sentence := coverage(study.datasets)) else []
    return Table(
        "Recall and NDCG of training objectives",
        pd.DataFrame(rows, columns=[*COLUMNS, "gain_percent", "p"]),
        grids,
        notes,
    )


def _baselines(dataset: str, results: Results) -> list[Experiment]:
    path = DatasetPaths(dataset).baselines
    return [
        Experiment(
            NO_BACKBONE, name, {metric: Estimate((number(path, found, metric, within=(name,)),)) for metric in METRICS}
        )
        for name, found in results.baselines(dataset).items()
    ]


def _trained(study: Table1, dataset: str, backbone: str, results: Results) -> list[Experiment]:
    experiments = []
    for objective in study.objectives:
        runs = results.experiment(dataset, backbone, objective, study.seeds)
        scores = {metric: results.metric(runs, "test", metric) for metric in METRICS}
        experiments.append(Experiment(backbone, objective, scores, tuple(runs)))
    return experiments


def _reference(experiments: Sequence[Experiment]) -> Experiment | None:
    return next((one for one in experiments if one.objective == REFERENCE), None)


def _shows_gain(objective: str) -> bool:
    return objective.startswith("apao-")


def _p_values(experiments: Sequence[Experiment], results: Results) -> PValues:
    """p of every other objective against the reference, by objective and code-level metric."""
    reference = _reference(experiments)
    if reference is None:
        return {}
    ranks = {one.objective: [results.test_ranks(run) for run in one.runs] for one in experiments}
    return {
        (one.objective, metric): paired_p(ranks[one.objective], ranks[REFERENCE], metric)
        for one in experiments
        for metric in METRICS
        if one is not reference and not metric.startswith("item_")
    }


def _long(dataset: str, one: Experiment, reference: Experiment | None, p_values: PValues) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for metric in METRICS:
        score = one.scores[metric]
        paper = math.nan
        if metric in SHOWN:
            paper = printed(
                "table1", "value", backbone=one.backbone, objective=one.objective, dataset=dataset, metric=metric
            )
        gain = math.nan if reference is None or reference is one else one.gain(reference, metric)
        rows.append(
            (
                *(one.backbone, one.objective, dataset, metric, score.mean, score.sd),
                *(" ".join(str(run.seed) for run in one.runs), len(one.runs), paper, score.mean - paper),
                *(gain, p_values.get((one.objective, metric), math.nan)),
            )
        )
    return rows


def _metrics_grid(
    dataset: str,
    baselines: Sequence[Experiment],
    trained: dict[str, list[Experiment]],
    p_values: dict[str, PValues],
) -> Grid:
    metrics = [*SHOWN, *(f"item_{metric}" for metric in SHOWN)]
    names = [(group, short_name(metric)) for group in ("Code level", "Item level, strict") for metric in SHOWN]
    grid = Grid(dataset, 2, [("", "Backbone"), ("", "Objective"), *names])

    def row(one: Experiment, first: bool) -> list[Cell]:
        numbers = [Cell(spread(one.scores[metric].mean, one.scores[metric].sd)) for metric in metrics]
        return [Cell(one.backbone if first else ""), Cell(one.objective), *numbers]

    grid.parts.append([row(one, i == 0) for i, one in enumerate(baselines)])
    for backbone, experiments in trained.items():
        rows = [row(one, i == 0) for i, one in enumerate(experiments)]
        values = [[one.scores[metric].mean for metric in metrics] for one in experiments]
        bold_best(rows, range(2, 2 + len(metrics)), values)
        grid.parts.append(rows)
        reference = _reference(experiments)
        if reference is not None:
            grid.parts[-1] += [
                _gain_row(one, reference, metrics, p_values[backbone])
                for one in experiments
                if _shows_gain(one.objective)
            ]
    return grid


def _gain_row(one: Experiment, reference: Experiment, metrics: Sequence[str], p_values: PValues) -> list[Cell]:
    cells = [Cell(""), Cell(f"gain of {one.objective}, %")]
    for metric in metrics:
        star = "*" if p_values.get((one.objective, metric), 1.0) < 0.05 else ""
        cells.append(Cell(fixed(one.gain(reference, metric), 1, signed=True) + star))
    return cells


def _paper_grid(dataset: str, trained: dict[str, list[Experiment]]) -> Grid:
    names = [(short_name(metric), name) for metric in SHOWN for name in ("ours", "paper", "difference")]
    grid = Grid(f"{dataset}, ours and the paper's", 2, [("", "Backbone"), ("", "Objective"), *names])
    for backbone, experiments in trained.items():
        rows = []
        for i, one in enumerate(experiments):
            rows.append([Cell(backbone if i == 0 else ""), Cell(one.objective)])
            for metric in SHOWN:
                keys = {"backbone": backbone, "objective": one.objective, "dataset": dataset, "metric": metric}
                score = one.scores[metric]
                rows[-1] += compared(score.mean, score.sd, printed("table1", "value", **keys))
        grid.parts.append(rows)
    return grid


def short_name(metric: str) -> str:
    """``R@10`` for ``recall@10``."""
    kind, _, cutoff = metric.partition("@")
    return f"{'R' if kind == 'recall' else 'N'}@{cutoff}"
