"""A figure of metrics of every objective with their intervals, beside the paper's numbers."""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import pandas as pd
from typing_extensions import override

from apao.evaluation.metrics import metric_title
from apao.report import style
from apao.report.base import FigureStudy
from apao.report.paper import coverage, table1
from apao.report.results import ESTIMATE, Estimate, Results, seeds_of, with_seeds
from apao.report.values import number
from apao.study.paths import DatasetPaths
from apao.study.runs import Run
from apao.study.studies import STUDIES, GridStudy, Metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = ["dataset", "backbone", "objective", "metric", *ESTIMATE, "seeds", "paper"]
OURS: dict[str, Any] = {"color": style.COLOURS[2], "marker": "o", "markersize": 5}
PAPER: dict[str, Any] = {
    **{"color": style.COLOURS[3], "marker": "D", "markersize": 6, "markerfacecolor": "none", "linestyle": "none"},
    "label": "the paper",
}
POPULAR: dict[str, Any] = {"color": "#555555", "linestyle": ":", "linewidth": 1.2, "label": "most popular items"}
POPULAR_SAID = "The dotted line is recommending the most popular items to everyone. "
ROW = 0.24
"""Inches per objective."""
LONGEST = 36
"""Characters of a label in one line."""


@STUDIES.register
class MetricIntervals(GridStudy, FigureStudy):
    """Each metric of every objective with its 95 % interval and the paper's number."""

    kind: Literal["metric-intervals"]
    metrics: Metrics = ("recall@10", "ndcg@10")
    """Code-level metrics, one column of panels each."""

    files: ClassVar[tuple[str, ...]] = ("metrics.json", "ranks.parquet")

    @override
    def inputs(self) -> list[Path]:
        return [DatasetPaths(dataset).baselines for dataset in self.datasets]

    @override
    def build(self, results: Results) -> style.Drawing:
        from matplotlib.ticker import MaxNLocator

        popular = {key: _most_popular(results, *key) for key in product(self.datasets, self.metrics)}
        shown = {pair: self._shown(results, *pair) for pair in self.pairs}
        heights = [0.65 + ROW * len(runs) for runs in shown.values()]
        figure = style.blank(style.WIDTH, 0.3 + sum(heights))
        axes = figure.subplots(
            len(self.pairs), len(self.metrics), squeeze=False, sharex="col", sharey="row", height_ratios=heights
        )
        rows: list[tuple[Any, ...]] = []
        for (i, pair), (j, metric) in product(enumerate(self.pairs), enumerate(self.metrics)):
            if not math.isnan(popular[pair[0], metric]):
                axes[i, j].axvline(popular[pair[0], metric], **POPULAR)
            for place, (objective, runs) in enumerate(shown[pair].items()):
                name = results.name_in_paper(*pair, objective)
                score, paper = results.test_metric(runs, metric), table1(pair[0], pair[1], name, metric)
                _draw(axes[i, j], place, score, paper)
                seeds = seeds_of(runs)
                rows.append((*pair, objective, metric, *score.numbers(), seeds, paper))
            places = len(shown[pair])
            axes[i, j].set(title=f"{', '.join(pair)}: {metric_title(metric)}", ylim=(places - 0.5, -0.5))
            labels = [_label(with_seeds(name, runs, self.seeds)) for name, runs in shown[pair].items()]
            axes[i, j].set_yticks(range(places), labels=labels)
            axes[i, j].tick_params(labelbottom=True)
            axes[i, j].xaxis.set_major_locator(MaxNLocator(5))
            axes[i, j].grid(visible=False, axis="y")
        for column in axes[0]:
            column.set_xlim(left=0)  # of all panels that share it, and only now that they are drawn
        with_paper = any(not math.isnan(row[-1]) for row in rows)
        with_popular = not all(map(math.isnan, popular.values()))
        style.make_room(figure, _legend(figure, with_paper, with_popular))
        caption = (
            f"{' and '.join(map(metric_title, self.metrics))} on the test items (code level); higher is better. "
            f"{POPULAR_SAID if with_popular else ''}"
            "Intervals over the test users are over the same ones, so two objectives may differ by more than chance "
            "although theirs overlap; "
            "comparison tables test the differences. "
            f"{results.origin(self)} {results.error_bars(self, self.seeds)} {coverage(self.datasets)}"
        )
        return style.Drawing(figure, pd.DataFrame(rows, columns=COLUMNS), caption.strip())

    def _shown(self, results: Results, dataset: str, backbone: str) -> dict[str, list[Run]]:
        """The runs of each objective that has some, or a number in the paper; of all where none has."""
        runs = {name: results.experiment(dataset, backbone, name, self.seeds) for name in self.objectives}
        printed = {
            name: [table1(dataset, backbone, results.name_in_paper(dataset, backbone, name), m) for m in self.metrics]
            for name in self.objectives
        }
        shown = {name: some for name, some in runs.items() if some or not all(map(math.isnan, printed[name]))}
        return shown or runs


def _label(text: str) -> str:
    """``text`` in two lines if it is long, so that it leaves room for the panels."""
    before, plus, after = text[:LONGEST].rpartition("+")
    return text if len(text) <= LONGEST or not plus else f"{before}\n+{after}{text[LONGEST:]}"


def _legend(figure: Any, with_paper: bool, with_popular: bool) -> int:
    from matplotlib.lines import Line2D

    shown = [{**OURS, "label": "ours with its 95 % interval"}, *([PAPER] * with_paper), *([POPULAR] * with_popular)]
    return style.legend(figure, style.WIDTH, [], others=[Line2D([], [], **look) for look in shown])


def _draw(axes: Axes, place: int, score: Estimate, paper: float) -> None:
    """One objective, ours a little above the paper's."""
    if score.values:
        axes.errorbar([score.mean], [place - 0.12], xerr=style.reach([score]), linewidth=1.2, **OURS)
    else:
        transform = axes.get_yaxis_transform()
        axes.text(0.02, place, "not run", va="center", color=style.ABSENT, fontsize=7.5, transform=transform)
    if not math.isnan(paper):
        axes.plot([paper], [place + 0.12], **PAPER)


def _most_popular(results: Results, dataset: str, metric: str) -> float:
    """NaN where the baselines are absent."""
    path = results.collection.place(DatasetPaths(dataset).baselines)
    found = results.baselines(dataset)
    return number(path, found, "most-popular", metric) if found else math.nan
