"""A figure of (a) an objective without one of its parts and (b) without the loss of one prefix length."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
import pandas as pd
from pydantic import Field
from typing_extensions import override

from apao.evaluation.metrics import metric_title
from apao.report import style
from apao.report.base import FigureStudy
from apao.report.render import spread
from apao.report.results import ESTIMATE, Estimate, Results, seeds_of
from apao.study.runs import Run
from apao.study.studies import STUDIES, Metrics, Seeds, grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NOT_RUN = "not run"
COLUMNS = ["panel", "label", "dataset", "backbone", "objective", "metric", *ESTIMATE, "seeds"]
Variants = Annotated[dict[str, str], Field(min_length=1)]
"""Label to objective, drawn in this order."""


@STUDIES.register
class Ablation(FigureStudy):
    """(a) An objective without one of its parts; (b) without the loss of one prefix length (the paper's Figure 2)."""

    kind: Literal["ablation"]
    dataset: str
    backbone: str
    modules: Variants
    """Panel (a): label to objective, drawn in this order."""
    prefixes: Variants
    """Panel (b): label to objective, drawn in this order."""
    metrics: Metrics = ("ndcg@10", "recall@10")
    """Code-level metrics, one column of panels each."""
    seeds: Seeds

    files: ClassVar[tuple[str, ...]] = ("metrics.json", "ranks.parquet")

    @override
    def runs(self) -> list[Run]:
        objectives = (*self.modules.values(), *self.prefixes.values())
        return grid((self.dataset,), (self.backbone,), objectives, self.seeds)

    @override
    def build(self, results: Results) -> style.Drawing:
        panels = {"a": ("modules", self.modules), "b": ("prefix losses", self.prefixes)}
        bars = [len(variants) for _, variants in panels.values()]
        figure = style.blank(style.WIDTH, 1.1 + 0.24 * sum(bars))
        axes = figure.subplots(2, len(self.metrics), squeeze=False, sharex="col", sharey="row", height_ratios=bars)
        rows = []
        longest = [0.0] * len(self.metrics)
        for i, (panel, (what, variants)) in enumerate(panels.items()):
            for j, metric in enumerate(self.metrics):
                runs = {label: self._runs(results, objective) for label, objective in variants.items()}
                scores = {label: results.test_metric(some, metric) for label, some in runs.items()}
                _draw_bars(axes[i, j], scores, i)
                longest[j] = max(longest[j], *(_end(one) for one in scores.values()))
                axes[i, j].set_title(f"({panel}) {what}: {metric_title(metric)}")
                axes[i, j].set_xlabel(metric_title(metric) if i else "")
                place = (self.dataset, self.backbone)
                rows += [
                    (*(panel, label, *place, variants[label], metric), *one.numbers(), seeds_of(runs[label]))
                    for label, one in scores.items()
                ]
        for j, value in enumerate(longest):
            # Room for the numbers behind the bars; ± asks for more of it.
            axes[0, j].set_xlim(0, (1.3 if len(self.seeds) == 1 else 1.7) * (value or 1))
        caption = (
            f"{' and '.join(map(metric_title, self.metrics))} on the test items (code level) (a) without one module "
            "and (b) without the loss on one prefix (m: the first m + 1 tokens, as in the paper); higher is better. "
            f"{results.origin(self)} {results.error_bars(self, self.seeds)}"
            f"{' ± is the sample standard deviation over them.' if len(self.seeds) > 1 else ''}"
        )
        return style.Drawing(figure, pd.DataFrame(rows, columns=COLUMNS), caption)

    def _runs(self, results: Results, objective: str) -> list[Run]:
        return results.experiment(self.dataset, self.backbone, objective, self.seeds)


def _end(score: Estimate) -> float:
    """Where the error bar ends, or the bar where it has none."""
    return float(np.nanmax([0, score.mean, *score.interval]))


def _draw_bars(axes: Axes, scores: dict[str, Estimate], panel: int) -> None:
    """Bars from 0, the first label on top, each with its value: differences may be too small to see."""
    from matplotlib.ticker import MaxNLocator

    at = range(len(scores))
    means = [0 if math.isnan(one.mean) else one.mean for one in scores.values()]
    bars = axes.barh(
        at,
        means,
        height=0.7,
        color=[("#bbbbbb" if i else "#0072B2") for i in at],
        edgecolor="black",
        linewidth=0.6,
        hatch=["" if i == 0 else style.HATCHES[1 + panel] for i in at],
        xerr=style.reach(list(scores.values())),
        error_kw={"elinewidth": 1},
    )
    labels = [spread(one.mean, one.sd) if one.values else NOT_RUN for one in scores.values()]
    for text, one in zip(axes.bar_label(bars, labels=labels, padding=3, fontsize=7.5), scores.values(), strict=True):
        text.set_color("black" if one.values else style.ABSENT)
    axes.set_yticks(list(at), labels=list(scores))
    axes.set_ylim(len(scores) - 0.4, -0.6)
    axes.xaxis.set_major_locator(MaxNLocator(4, prune="upper"))
    axes.grid(visible=False)
