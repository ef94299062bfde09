"""Figure 5: Recall@20 of every prefix length, and the gain of the last objective over the best of the others."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from apao.report import style
from apao.report.render import ABSENT, fixed
from apao.report.results import Estimate, Results, origin, seeds_sentence
from apao.study.studies import Figure5

COLUMNS = ["dataset", "backbone", "series", "prefix", "quantity", "value", "sd", "seeds"]
BARS: dict[str, Any] = {"facecolor": "#bbbbbb", "edgecolor": "black", "linewidth": 0.6, "hatch": style.HATCHES[1]}
QUANTITY = "prefix_recall@20"


def build(study: Figure5, results: Results) -> style.Drawing:
    """The figure of a study."""
    columns = [(dataset, backbone) for dataset in study.datasets for backbone in study.backbones]
    width = max(style.WIDTH, 1.8 * len(columns))
    figure = style.blank(width, 3.7)
    axes = figure.subplots(2, len(columns), squeeze=False, sharey="row", height_ratios=(3, 2))
    *others, last = study.objectives
    rows = []
    for j, (dataset, backbone) in enumerate(columns):
        recalls = {}
        for s, objective in enumerate(study.objectives):
            runs = results.experiment(dataset, backbone, objective, study.seeds)
            recalls[objective] = results.levels(runs, "metrics.json", "test", QUANTITY)
            style.draw_line(axes[0, j], range(len(recalls[objective])), recalls[objective], s, len(study.objectives))
        gains = gain_over_best(recalls[last], [recalls[objective] for objective in others])
        _draw_gains(axes[1, j], gains)
        for i in range(2):
            style.places(axes[i, j], [str(m) for m in range(len(gains))])
        axes[0, j].set_title(f"{dataset}, {backbone}")
        axes[1, j].set_xlabel("Prefix")
        seeds = " ".join(map(str, study.seeds))
        for objective, recall in recalls.items():
            rows += [
                (dataset, backbone, objective, m, QUANTITY, one.mean, one.sd, seeds) for m, one in enumerate(recall)
            ]
        rows += [(dataset, backbone, last, m, "gain_percent", gain, math.nan, seeds) for m, gain in enumerate(gains)]
    axes[0, 0].set_ylabel("Recall@20 of the prefix")
    axes[1, 0].set_ylabel("Gain over the\nbest other (%)")
    figure.align_ylabels()
    gain = Patch(label=f"gain of {last}", **BARS)
    style.make_room(figure, style.legend(figure, width, study.objectives, others=[gain]))
    caption = (
        "Above: share of test users for whom the target's prefix is among the 20 beams after its step; prefix m holds "
        f"the codes of levels 0 to m. Below: by how many percent {last} is above the best of "
        f"{', '.join(others)} at that prefix. "
        f"{origin(results.scale, [results.normalised(run) for run in study.runs()])} "
        + seeds_sentence(study.seeds, "error bars are")
    )
    return style.Drawing(figure, pd.DataFrame(rows, columns=COLUMNS), caption)


def gain_over_best(ours: list[Estimate], others: list[list[Estimate]]) -> list[float]:
    """Percent by which each of ``ours`` is above the largest of the others; NaN where that is 0."""
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
