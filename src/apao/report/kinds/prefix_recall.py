"""A figure of Recall@20 per prefix length, and of the gain of the last objective over the best of the others."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pandas as pd
from pydantic import Field
from typing_extensions import override

from apao.report import style
from apao.report.base import FigureStudy
from apao.report.render import ABSENT, fixed
from apao.report.results import Estimate, Results, seed_list, seeds_sentence
from apao.study.studies import STUDIES, GridStudy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = ["dataset", "backbone", "series", "prefix", "quantity", "value", "sd", "seeds"]
BARS: dict[str, Any] = {"facecolor": "#bbbbbb", "edgecolor": "black", "linewidth": 0.6, "hatch": style.HATCHES[1]}
QUANTITY = "prefix_recall@20"


@STUDIES.register
class PrefixRecall(GridStudy, FigureStudy):
    """Recall@20 per prefix length; the gain of the last objective over the others (the paper's Figure 5)."""

    kind: Literal["prefix-recall"]
    objectives: Annotated[tuple[str, ...], Field(min_length=2)]

    @override
    def build(self, results: Results) -> style.Drawing:
        from matplotlib.patches import Patch

        columns = [(dataset, backbone) for dataset in self.datasets for backbone in self.backbones]
        width = max(style.WIDTH, 1.8 * len(columns))
        figure = style.blank(width, 3.7)
        axes = figure.subplots(2, len(columns), squeeze=False, sharey="row", height_ratios=(3, 2))
        *others, last = self.objectives
        panels = {place: self._recalls(results, *place) for place in columns}
        drawn = {objective for recalls in panels.values() for objective in recalls}
        for j, (place, recalls) in enumerate(panels.items()):
            self._draw_recalls(axes[0, j], recalls, drawn)
            _draw_gains(axes[1, j], _gains(recalls, last))
            style.mark_gaps(axes[1, j], [], empty=not _gains(recalls, last))
            for i in range(2):
                style.places(axes[i, j], [str(m) for m in range(max(map(len, recalls.values()), default=1))])
            axes[0, j].set_title(", ".join(place))
            axes[1, j].set_xlabel("Prefix")
        axes[0, 0].set_ylabel("Recall@20 of the prefix")
        axes[1, 0].set_ylabel("Gain over the\nbest other (%)")
        figure.align_ylabels()
        gain = Patch(label=f"gain of {last}", **BARS)
        absent = set(self.objectives) - drawn
        style.make_room(figure, style.legend(figure, width, self.objectives, others=[gain], absent=absent))
        caption = (
            "Above: share of test users whose target's prefix is among the 20 beams after its step; prefix m "
            f"has the tokens of levels 0 to m. Below: gain of {last} over the best of "
            f"{', '.join(others)} at that prefix, in percent. "
            f"{results.origin(self)} " + seeds_sentence(self.seeds, "error bars are")
        )
        rows = [row for place, recalls in panels.items() for row in self._long(results, place, recalls)]
        return style.Drawing(figure, pd.DataFrame(rows, columns=COLUMNS), caption)

    def _recalls(self, results: Results, dataset: str, backbone: str) -> dict[str, list[Estimate]]:
        """Recall of every prefix by objective, for those that were run."""
        runs = {name: results.experiment(dataset, backbone, name, self.seeds) for name in self.objectives}
        return {name: results.levels(some, "metrics.json", "test", QUANTITY) for name, some in runs.items() if some}

    def _draw_recalls(self, axes: Axes, recalls: dict[str, list[Estimate]], drawn: set[str]) -> None:
        for series, objective in enumerate(self.objectives):
            recall = recalls.get(objective, [])
            style.draw_line(axes, range(len(recall)), recall, series, len(self.objectives))
        style.mark_gaps(axes, [name for name in self.objectives if name in drawn - set(recalls)], empty=not recalls)

    def _long(
        self, results: Results, place: tuple[str, str], recalls: dict[str, list[Estimate]]
    ) -> Iterator[tuple[object, ...]]:
        seeds = {name: seed_list(run.seed for run in results.experiment(*place, name, self.seeds)) for name in recalls}
        for name, recall in recalls.items():
            for m, one in enumerate(recall):
                yield (*place, name, m, QUANTITY, one.mean, one.sd, seeds[name])
        last = self.objectives[-1]
        for m, gain in enumerate(_gains(recalls, last)):
            yield (*place, last, m, "gain_percent", gain, math.nan, seeds[last])


def _gains(recalls: dict[str, list[Estimate]], last: str) -> list[float]:
    """Gains of ``last`` over the best other objective; empty if either was not run."""
    others = [recall for name, recall in recalls.items() if name != last]
    return gain_over_best(recalls[last], others) if last in recalls and others else []


def gain_over_best(ours: list[Estimate], others: list[list[Estimate]]) -> list[float]:
    """Gain of each of ``ours`` over the largest of the others, in percent; NaN where that is 0."""
    gains = []
    for m, one in enumerate(ours):
        best = max(other[m].mean for other in others)
        gains.append(100 * (one.mean / best - 1) if best else math.nan)
    return gains


def _draw_gains(axes: Axes, gains: list[float]) -> None:
    bars = axes.bar(
        range(len(gains)),
        [0 if math.isnan(gain) else gain for gain in gains],
        width=0.6,
        **BARS,
    )
    labels = [ABSENT if math.isnan(gain) else fixed(gain, 1, signed=True) for gain in gains]
    axes.bar_label(bars, labels=labels, padding=2, fontsize=7)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.margins(y=0.25)
    axes.grid(visible=False, axis="x")
