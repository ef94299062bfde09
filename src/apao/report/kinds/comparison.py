"""A table of objectives x backbones x datasets with the untrained baselines, and of our numbers beside the paper's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, product
from pathlib import Path
from typing import ClassVar, Literal

import pandas as pd
from typing_extensions import override

from apao.evaluation.metrics import CODE_LEVEL, ITEM_LEVEL, METRICS, metric_names, short_name
from apao.report import comparisons
from apao.report.base import TableStudy
from apao.report.comparisons import ALPHA, INTERVALS, Experiment, Pair, Verdict, best_other, corrected, judged
from apao.report.paper import coverage, table1, uses
from apao.report.render import ABSENT, Cell, Grid, Table, bold_best, fixed, p_text, spread
from apao.report.results import Estimate, Results, seeds_of
from apao.report.values import number
from apao.study.paths import DatasetPaths
from apao.study.runs import Run
from apao.study.studies import STUDIES, GridStudy

SHOWN_CUTOFFS = (10, 20)
"""Cutoffs in the wide tables, as in the paper; the CSV has all."""
P_SEEDS = "p (seeds)"
INTERVAL_HEADS = ("ours", "95 % interval", "paper", "difference", "p (users)", P_SEEDS)
PAPER_HEADS = ("paper", "difference")
OUTSIDE = "†"
"""Behind a number of the paper that lies outside our interval."""
NO_BACKBONE = "baseline"
"""Value of the column ``backbone`` for untrained baselines."""
COLUMNS = (
    *("backbone", "objective", "dataset", "metric", "value", "sd", "seeds", "runs", "paper", "difference"),
    *("best_baseline", *comparisons.COLUMNS, "best_of_all", "gain_over_all_percent"),
)
Trained = dict[str, list[Experiment]]
"""Backbone to the experiments on one dataset, in the order of the objectives."""
Verdicts = dict[tuple[str, str, str], Verdict]
"""Verdict by backbone, objective and metric."""
Gains = dict[tuple[str, str, str], tuple[str, float]]
"""The objective compared with and the gain over it in percent, by backbone, objective and metric."""


@dataclass(frozen=True)
class Untrained:
    """Test metrics of an untrained baseline."""

    name: str
    scores: dict[str, Estimate]


@STUDIES.register
class Comparison(GridStudy, TableStudy):
    """Every metric of every objective on every backbone and dataset (the paper's Table 1)."""

    kind: Literal["comparison"]

    files: ClassVar[tuple[str, ...]] = ("metrics.json", "ranks.parquet")

    @override
    def inputs(self) -> list[Path]:
        return [DatasetPaths(dataset).baselines for dataset in self.datasets]

    @override
    def build(self, results: Results) -> Table:
        grids, rows, users = [], [], {}
        trained_of_all: list[Experiment] = []
        compared: dict[str, list[Experiment]] = {}
        for dataset in self.datasets:
            untrained, trained = _untrained(dataset, results), self._trained(dataset, results)
            trained_of_all += chain.from_iterable(trained.values())
            verdicts, overall = _verdicts(trained), _gains_over_all(trained)
            grids.append(_metrics_grid(dataset, untrained, trained, verdicts))
            grids += [_interval_grid(dataset, kind, trained, verdicts) for kind in METRICS]
            rows += [row for one in untrained for row in _long(dataset, NO_BACKBONE, one.name, one.scores)]
            for backbone, experiments in trained.items():
                for one in experiments:
                    rows += _long(
                        dataset, backbone, one.objective, one.scores, one.runs, verdicts, overall, one.in_paper
                    )
                    rows += _long(dataset, backbone, one.objective, results.list_metrics(one.runs), one.runs)
            users[dataset] = max(len(one.users) for one in chain.from_iterable(trained.values()))
            compared[dataset] = [one for one in chain.from_iterable(trained.values()) if _is_compared(one, verdicts)]
        notes = [
            results.origin(self),
            "Test items. Code level: a hit is the target's code, as in the paper. Item level, strict: the items of "
            "one code share its rank in expectation. The untrained baselines rank items; at code level, most-popular "
            "gives a code the place of its most popular item, and random ranks the codes. Bold: the best objective per "
            "backbone. " + results.seeds_sentence(self, self.seeds),
            f"{INTERVALS} None has both causes; of fewer seeds that of the seed is unknown."
            + (
                f" {OUTSIDE}: the paper's number, whose own uncertainty is not known, lies outside ours."
                if any(map(uses, self.datasets))
                else ""
            ),
            _tuning_note(trained_of_all, results),
            _gains_note(users, compared, _baselines(trained_of_all)) if any(compared.values()) else "",
            coverage(self.datasets),
        ]
        title = f"{' and '.join(metric.title for metric in METRICS.values())} of training objectives"
        return Table(title, pd.DataFrame(rows, columns=list(COLUMNS)), grids, notes)

    def _trained(self, dataset: str, results: Results) -> Trained:
        return {
            backbone: [
                Experiment.read(results, dataset, backbone, objective, self.seeds, metric_names())
                for objective in self.objectives
            ]
            for backbone in self.backbones
        }


def _gains_note(
    users: Mapping[str, int], compared: Mapping[str, Sequence[Experiment]], baselines: Sequence[str]
) -> str:
    """What gains, stars and p are; ``compared`` are the experiments of each dataset that have a baseline."""
    runs = sorted({len(one.runs) for experiments in compared.values() for one in experiments})
    counts = {dataset: len(experiments) for dataset, experiments in compared.items() if experiments}
    tests = ", ".join(f"{dataset} {count}" for dataset, count in counts.items())
    if len(set(counts.values())) == 1:
        tests = str(next(iter(counts.values())))
    over_users = (
        "p (users) is of a two-sided paired t-test over the users after Holm's correction for the comparisons of one "
        f"dataset and metric ({tests}: every objective and backbone)"
    )
    over_seeds = (
        "p (seeds) is of the paper's test, a two-sided one-sample t-test of the "
        f"{' or '.join(str(count) for count in runs if count > 1)} seeds against that baseline's mean, taken as exact, "
        "not corrected for the number of tests"
    )
    if runs[-1] == 1:
        said, starred = over_users, "over the users, since the paper's test over seeds needs several seeds"
    else:
        said = f"{over_users}; {over_seeds}"
        starred = "over the seeds" if runs[0] > 1 else "over the seeds, or, in rows of one seed, over the users"
    counted = ", ".join(f"{dataset} {count:,}" for dataset, count in users.items())
    return (
        "Gains, the paper's too, are over that of the paper's baselines which is best here by the same metric and with "
        f"the same backbone ({', '.join(baselines)}): in percent in the first table, in the metric's own unit beside "
        f"the intervals. {said}. A star marks p <= {ALPHA} {starred}. The CSV has the intervals of all metrics, and "
        "the gain over the best of all objectives that the paper does not propose. "
        f"Test users: {counted}."
    )


def _tuning_note(experiments: Sequence[Experiment], results: Results) -> str:
    """A note on which objectives were tuned for which dataset and how."""
    places: dict[tuple[str, str], list[str]] = {}
    for one in (one for one in experiments if one.runs):
        place = f"{one.runs[0].dataset}/{one.backbone}"
        places.setdefault((one.objective, results.tuned_by(one.runs[0])), []).append(place)
    tuned = [f"{name}: {way} ({', '.join(where)})" for (name, way), where in places.items() if way]
    untuned = dict.fromkeys(name for name, way in places if not way)
    if not tuned:
        return "No objective is tuned for a dataset."
    rest = f" Not tuned for a dataset: {', '.join(untuned)}." if untuned else ""
    return f"Hyper-parameters chosen for a dataset. {'. '.join(tuned)}.{rest}"


def _baselines(experiments: Sequence[Experiment]) -> list[str]:
    """Objectives, as spelled in the study, that are baselines in the paper."""
    return list(dict.fromkeys(one.objective for one in experiments if one.role == "baseline"))


def _untrained(dataset: str, results: Results) -> list[Untrained]:
    path = results.collection.place(DatasetPaths(dataset).baselines)
    found = results.baselines(dataset)
    return [
        Untrained(name, {metric: Estimate((number(path, found, name, metric),)) for metric in metric_names()})
        for name in found
    ]


def _verdicts(trained: Trained) -> Verdicts:
    """Every trained objective against the best baseline; the tests of one metric on the dataset are a family."""
    verdicts: Verdicts = {}
    for backbone, experiments in trained.items():

        def against_best(one: Experiment, metric: str, among: list[Experiment] = experiments) -> Pair | None:
            other = best_other(among, one, metric, {"baseline"})
            return None if other is None else (one, other)

        found = judged(experiments, metric_names(), against_best)
        verdicts |= {(backbone, *key): verdict for key, verdict in found.items()}
    return corrected(verdicts, family=lambda key: key[2])


def _gains_over_all(trained: Trained) -> Gains:
    """Gains of every trained objective over the best one that the paper does not propose."""
    gains: Gains = {}
    for backbone, experiments in trained.items():
        for one, metric in product((one for one in experiments if one.runs), metric_names()):
            other = best_other(experiments, one, metric, {"baseline", "other"})
            if other is not None:
                gains[backbone, one.objective, metric] = other.objective, one.gain(other, metric)
    return gains


def _long(
    dataset: str,
    backbone: str,
    objective: str,
    scores: dict[str, Estimate],
    runs: Sequence[Run] = (),
    verdicts: Verdicts | None = None,
    overall: Gains | None = None,
    in_paper: str = "",
) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for metric, score in scores.items():
        key = backbone, objective, metric
        verdict = (verdicts or {}).get(key, Verdict())
        paper = table1(dataset, backbone, in_paper, metric)
        rows.append(
            (
                *(backbone, objective, dataset, metric, score.mean, score.sd),
                *(seeds_of(runs), len(runs), paper, score.mean - paper),
                *(verdict.other, *verdict.numbers(), *(overall or {}).get(key, ("", math.nan))),
            )
        )
    return rows


def _metrics_grid(dataset: str, untrained: Sequence[Untrained], trained: Trained, verdicts: Verdicts) -> Grid:
    groups = {"Code level": CODE_LEVEL, "Item level, strict": ITEM_LEVEL}
    shown = [(group, metric) for group, level in groups.items() for metric in metric_names(SHOWN_CUTOFFS, [level])]
    names = [(group, short_name(metric)) for group, metric in shown]
    metrics = [metric for _, metric in shown]
    grid = Grid(dataset, 2, [("", "Backbone"), ("", "Objective"), *names])

    def row(backbone: str, objective: str, scores: dict[str, Estimate]) -> list[Cell]:
        numbers = [Cell(spread(scores[metric].mean, scores[metric].sd)) for metric in metrics]
        return [Cell(backbone), Cell(objective), *numbers]

    if untrained:
        grid.parts.append([row("" if i else NO_BACKBONE, one.name, one.scores) for i, one in enumerate(untrained)])
    for backbone, experiments in trained.items():
        rows = [row("" if i else backbone, one.objective, one.scores) for i, one in enumerate(experiments)]
        values = [[one.scores[metric].mean for metric in metrics] for one in experiments]
        bold_best(rows, range(2, 2 + len(metrics)), values)
        gains = [_gain_row(one, metrics, verdicts) for one in experiments if _shows_gain(one, verdicts)]
        grid.parts.append(rows + gains)
    return grid


def _shows_gain(one: Experiment, verdicts: Verdicts) -> bool:
    return one.role == "proposed" and _is_compared(one, verdicts)


def _is_compared(one: Experiment, verdicts: Verdicts) -> bool:
    """Whether there is a baseline to compare with, which does not depend on the metric."""
    return verdicts[one.backbone, one.objective, metric_names()[0]].other != ""


def _gain_row(one: Experiment, metrics: Sequence[str], verdicts: Verdicts) -> list[Cell]:
    cells = [Cell(""), Cell(f"gain of {one.objective}, %")]
    for metric in metrics:
        verdict = verdicts[one.backbone, one.objective, metric]
        star = "*" if verdict.starred(len(one.runs)) else ""
        cells.append(Cell(fixed(verdict.gain_percent, 1, signed=True) + star))
    return cells


def _interval_grid(dataset: str, kind: str, trained: Trained, verdicts: Verdicts) -> Grid:
    """One kind of metric with its intervals, and the paper's numbers where it has the dataset."""
    metrics = [f"{kind}@{k}" for k in SHOWN_CUTOFFS]
    has_paper = uses(dataset)
    several = any(len(one.runs) > 1 for one in chain.from_iterable(trained.values()))
    without = {*(() if has_paper else PAPER_HEADS), *(() if several else (P_SEEDS,))}
    heads = [head for head in INTERVAL_HEADS if head not in without]
    beside = ", ours and the paper's" if has_paper else ""
    names = [(short_name(metric), head) for metric in metrics for head in heads]
    grid = Grid(f"{dataset}: {METRICS[kind].title}{beside}", 2, [("", "Backbone"), ("", "Objective"), *names])

    def row(backbone: str, label: str, of_metrics: Sequence[dict[str, str]]) -> list[Cell]:
        return [Cell(backbone), Cell(label), *(Cell(cells[head]) for cells in of_metrics for head in heads)]

    for backbone, experiments in trained.items():
        own = [[_score_cells(dataset, one, metric, verdicts) for metric in metrics] for one in experiments]
        rows = [
            row("" if i else backbone, one.objective, cells)
            for i, (one, cells) in enumerate(zip(experiments, own, strict=True))
        ]
        for one in experiments:
            if _shows_gain(one, verdicts):
                gains = [_gain_cells(dataset, one, experiments, metric, verdicts) for metric in metrics]
                rows.append(row("", f"gain of {one.objective}", gains))
        grid.parts.append(rows)
    return grid


def _score_cells(dataset: str, one: Experiment, metric: str, verdicts: Verdicts) -> dict[str, str]:
    """Texts of ``INTERVAL_HEADS``: an objective's metric."""
    score, verdict = one.scores[metric], _verdict(one, metric, verdicts)
    paper = _paper(dataset, one, metric)
    return {
        "ours": spread(score.mean, score.sd),
        "95 % interval": _interval(verdict.low, verdict.high),
        "paper": _marked(paper, verdict.low, verdict.high),
        "difference": fixed(score.mean - paper, signed=True),
        "p (users)": "",
        P_SEEDS: "",
    }


def _gain_cells(
    dataset: str, one: Experiment, experiments: Sequence[Experiment], metric: str, verdicts: Verdicts
) -> dict[str, str]:
    """The same of how much an objective is above the best baseline by the metric."""
    verdict = _verdict(one, metric, verdicts)
    other = next(each for each in experiments if each.objective == verdict.other)
    gain = one.scores[metric].mean - other.scores[metric].mean
    paper = _paper(dataset, one, metric) - _paper(dataset, other, metric)
    return {
        "ours": fixed(gain, signed=True),
        "95 % interval": _interval(verdict.gain_low, verdict.gain_high, signed=True),
        "paper": _marked(paper, verdict.gain_low, verdict.gain_high, signed=True),
        "difference": fixed(gain - paper, signed=True),
        "p (users)": p_text(verdict.p_users_holm),
        P_SEEDS: p_text(verdict.p_seeds),
    }


def _verdict(one: Experiment, metric: str, verdicts: Verdicts) -> Verdict:
    return verdicts[one.backbone, one.objective, metric]


def _paper(dataset: str, one: Experiment, metric: str) -> float:
    return table1(dataset, one.backbone, one.in_paper, metric)


def _interval(low: float, high: float, signed: bool = False) -> str:
    return ABSENT if math.isnan(low) else f"{fixed(low, signed=signed)} to {fixed(high, signed=signed)}"


def _marked(paper: float, low: float, high: float, signed: bool = False) -> str:
    """The paper's number, marked where it lies outside our interval."""
    return fixed(paper, signed=signed) + (OUTSIDE if paper < low or paper > high else "")
