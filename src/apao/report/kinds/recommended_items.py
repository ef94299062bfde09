"""A figure of what the recommended lists are like: recall by the target's popularity, coverage, Gini index, ARP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pandas as pd
from typing_extensions import override

from apao.evaluation.list_metrics import GROUPS, HEAD_SHARE, LIST_LENGTH, LIST_METRICS
from apao.report import style
from apao.report.base import FigureStudy
from apao.report.results import ESTIMATE, Estimate, Results, seeds_of
from apao.study.studies import STUDIES, GridStudy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COVERAGE, GINI, POPULARITY, *RECALLS = LIST_METRICS
PANELS = {
    f"Strict Recall@{LIST_LENGTH} by the target's popularity": dict(zip(RECALLS, GROUPS, strict=True)),
    "Lists of all users": {COVERAGE: "coverage", GINI: "Gini index"},
    "Their items": {POPULARITY: "mean popularity"},
}
"""Title of a panel to its metrics and their labels."""
COLUMNS = ["dataset", "backbone", "objective", "metric", *ESTIMATE, "seeds"]
GROUP_WIDTH = 0.8
"""Of the bars of one metric; two metrics are 1 apart."""


@STUDIES.register
class RecommendedItems(GridStudy, FigureStudy):
    """Which items the lists of the test users hold, and how well popular and rare targets are found."""

    kind: Literal["recommended-items"]

    files: ClassVar[tuple[str, ...]] = ("metrics.json",)

    @override
    def build(self, results: Results) -> style.Drawing:
        figure = style.blank(style.WIDTH, 0.4 + 1.7 * len(self.pairs))
        widths = [len(metrics) for metrics in PANELS.values()]
        axes = figure.subplots(len(self.pairs), len(PANELS), squeeze=False, width_ratios=widths)
        nowhere, _ = results.gaps(self.pairs, self.objectives, self.seeds)
        rows: list[tuple[object, ...]] = []
        for row, pair in zip(axes, self.pairs, strict=True):
            runs = {name: results.experiment(*pair, name, self.seeds) for name in self.objectives}
            found = {name: results.list_metrics(some) for name, some in runs.items()}
            lacking = [name for name, estimates in found.items() if not estimates and name not in nowhere]
            for panel, metrics in zip(row, PANELS.values(), strict=True):
                _draw(panel, found, metrics)
            row[0].set_ylabel(", ".join(pair))
            style.mark_gaps(row[0], lacking, empty=not any(found.values()))
            rows += [
                (*pair, name, metric, *one.numbers(), seeds_of(runs[name]))
                for name, estimates in found.items()
                for metric, one in estimates.items()
            ]
        for panel, title in zip(axes[0], PANELS, strict=True):
            panel.set_title(title)
        style.make_room(figure, style.legend(figure, style.WIDTH, (), others=self._handles(nowhere)))
        caption = (
            f"The best {LIST_LENGTH} items of every test user. Left: strict Recall@{LIST_LENGTH} (item level) of the "
            f"users whose target is in the head, the {HEAD_SHARE:.0%} of the items that occur most often in the "
            "training histories, in the tail, or cold, in no training history. Middle: coverage, the share of the "
            "items that are in any list, and the Gini index of how often items are, 0 where all are equally often. "
            "Right: how often the items of the lists occur in the training histories, on average (ARP). "
            f"{results.origin(self)} {results.error_bars(self, self.seeds, over_users=False)}"
        )
        return style.Drawing(figure, pd.DataFrame(rows, columns=COLUMNS), caption)

    def _handles(self, nowhere: Sequence[str]) -> list[Any]:
        from matplotlib.patches import Patch

        names = [f"{name} (not run)" if name in nowhere else name for name in self.objectives]
        return [Patch(label=name, **_look(series)) for series, name in enumerate(names)]


def _look(series: int) -> dict[str, Any]:
    return {
        "facecolor": style.COLOURS[series % len(style.COLOURS)],
        "edgecolor": "white" if series == 0 else "black",
        "linewidth": 0.6,
        "hatch": style.HATCHES[series % len(style.HATCHES)],
    }


def _draw(axes: Axes, found: Mapping[str, Mapping[str, Estimate]], metrics: Mapping[str, str]) -> None:
    """A group of bars per metric, one bar per objective; a metric that an objective lacks has none."""
    width = GROUP_WIDTH / len(found)
    for series, estimates in enumerate(found.values()):
        shown = [estimates.get(metric, Estimate(())) for metric in metrics]
        at = np.arange(len(metrics)) + width * (series - (len(found) - 1) / 2)
        heights = [one.mean for one in shown]
        axes.bar(at, heights, width, yerr=style.reach(shown), error_kw={"elinewidth": 1}, **_look(series))
    for place, metric in enumerate(metrics):
        if any(found.values()) and not any(metric in estimates for estimates in found.values()):
            axes.annotate("none", (place, 0), (0, 3), textcoords="offset points", ha="center", color=style.ABSENT)
    style.places(axes, list(metrics.values()))
    axes.set_ylim(bottom=0)
    axes.grid(visible=False, axis="x")
