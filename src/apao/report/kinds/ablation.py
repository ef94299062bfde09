"""Figure 2: (a) the objective without one of its parts, (b) without the loss on one prefix."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from apao.report import style
from apao.report.render import spread
from apao.report.results import Estimate, Results, origin, seeds_sentence
from apao.study.studies import Figure2

METRICS = {"ndcg@10": "NDCG@10", "recall@10": "Recall@10"}
COLUMNS = ["panel", "label", "dataset", "backbone", "objective", "metric", "value", "sd", "seeds"]


def build(study: Figure2, results: Results) -> style.Drawing:
    """The figure of a study."""
    panels = {"a": ("modules", study.modules), "b": ("prefix losses", study.prefixes)}
    bars = [len(variants) for _, variants in panels.values()]
    figure = style.blank(style.WIDTH, 1.1 + 0.24 * sum(bars))
    axes = figure.subplots(2, len(METRICS), squeeze=False, sharex="col", sharey="row", height_ratios=bars)
    rows = []
    longest = [0.0] * len(METRICS)
    for i, (panel, (what, variants)) in enumerate(panels.items()):
        for j, (metric, title) in enumerate(METRICS.items()):
            scores = {
                label: results.metric(
                    results.experiment(study.dataset, study.backbone, objective, study.seeds), "test", metric
                )
                for label, objective in variants.items()
            }
            _draw_bars(axes[i, j], scores, i)
            longest[j] = max(longest[j], *(one.mean for one in scores.values()))
            axes[i, j].set_title(f"({panel}) {what}: {title}")
            axes[i, j].set_xlabel(title if i else "")
            seeds = " ".join(map(str, study.seeds))
            place = (study.dataset, study.backbone)
            rows += [
                (panel, label, *place, variants[label], metric, one.mean, one.sd, seeds)
                for label, one in scores.items()
            ]
    for j, value in enumerate(longest):
        # Room for the numbers behind the bars; ± asks for more of it.
        axes[0, j].set_xlim(0, (1.35 if len(study.seeds) == 1 else 1.8) * (value or 1))
    caption = (
        "NDCG@10 and Recall@10 on the test items (code level) (a) without one module and (b) without the loss on the "
        "prefix that ends at one level, numbered from 0; higher is better. "
        f"{origin(results.scale, [results.normalised(run) for run in study.runs()])} "
        + seeds_sentence(study.seeds, "error bars and ± are")
    )
    return style.Drawing(figure, pd.DataFrame(rows, columns=COLUMNS), caption)


def _draw_bars(axes: Axes, scores: dict[str, Estimate], panel: int) -> None:
    """Bars from 0, the first label on top, each with its value: differences may be too small to see."""
    at = range(len(scores))
    means = [one.mean for one in scores.values()]
    bars = axes.barh(
        at,
        means,
        height=0.7,
        color=[("#bbbbbb" if i else "#0072B2") for i in at],
        edgecolor="black",
        linewidth=0.6,
        hatch=["" if i == 0 else style.HATCHES[1 + panel] for i in at],
        xerr=None if any(math.isnan(one.sd) for one in scores.values()) else [one.sd for one in scores.values()],
    )
    axes.bar_label(bars, labels=[spread(one.mean, one.sd) for one in scores.values()], padding=3, fontsize=7.5)
    axes.set_yticks(list(at), labels=list(scores))
    axes.set_ylim(len(scores) - 0.4, -0.6)
    axes.xaxis.set_major_locator(MaxNLocator(4, prune="upper"))
    axes.grid(visible=False)
