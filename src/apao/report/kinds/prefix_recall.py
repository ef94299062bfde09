"""A figure of Recall@20 per prefix length, and of the gain of the last objective over the best of the others."""

from __future__ import annotations

import math
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
        rows = []
        for j, (dataset, backbone) in enumerate(columns):
            recalls = {}
            for s, objective in enumerate(self.objectives):
                runs = results.experiment(dataset, backbone, objective, self.seeds)
                recalls[objective] = results.levels(runs, "metrics.json", "test", QUANTITY)
                style.draw_line(axes[0, j], range(len(recalls[objective])), recalls[objective], s, len(self.objectives))
            gains = gain_over_best(recalls[last], [recalls[objective] for objective in others])
            _draw_gains(axes[1, j], gains)
            for i in range(2):
                style.places(axes[i, j], [str(m) for m in range(len(gains))])
            axes[0, j].set_title(f"{dataset}, {backbone}")
            axes[1, j].set_xlabel("Prefix")
            seeds = seed_list(self.seeds)
            for objective, recall in recalls.items():
                rows += [
                    (dataset, backbone, objective, m, QUANTITY, one.mean, one.sd, seeds) for m, one in enumerate(recall)
                ]
            where = (dataset, backbone, last)
            rows += [(*where, m, "gain_percent", gain, math.nan, seeds) for m, gain in enumerate(gains)]
        axes[0, 0].set_ylabel("Recall@20 of the prefix")
        axes[1, 0].set_ylabel("Gain over the\nbest other (%)")
        figure.align_ylabels()
        gain = Patch(label=f"gain of {last}", **BARS)
        style.make_room(figure, style.legend(figure, width, self.objectives, others=[gain]))
        caption = (
            "Above: share of test users whose target's prefix is among the 20 beams after its step; prefix m "
            f"has the tokens of levels 0 to m. Below: gain of {last} over the best of "
            f"{', '.join(others)} at that prefix, in percent. "
            f"{results.origin(self)} " + seeds_sentence(self.seeds, "error bars are")
        )
        return style.Drawing(figure, pd.DataFrame(rows, columns=COLUMNS), caption)


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
