"""A figure of Recall@20 per prefix length, and of the gain of the last objective over the best of the others."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
import pandas as pd
from pydantic import AfterValidator, Field
from typing_extensions import override

from apao.evaluation.metrics import PREFIX_RECALL
from apao.evaluation.significance import Ends, gain_interval, seeds_interval, wider
from apao.report import style
from apao.report.base import FigureStudy
from apao.report.comparisons import gain_percent
from apao.report.render import ABSENT, fixed
from apao.report.results import ESTIMATE, Estimate, Results, seeds_of
from apao.study.runs import Run
from apao.study.studies import STUDIES, GridStudy, distinct

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = ["dataset", "backbone", "series", "prefix", "quantity", *ESTIMATE, "seeds"]
BARS: dict[str, Any] = {"facecolor": "#bbbbbb", "edgecolor": "black", "linewidth": 0.6, "hatch": style.HATCHES[1]}


@dataclass(frozen=True)
class Gain:
    """Of one objective over another at one prefix."""

    percent: float
    interval: Ends


@STUDIES.register
class PrefixRecall(GridStudy, FigureStudy):
    """Recall@20 per prefix length; the gain of the last objective over the others (the paper's Figure 5)."""

    kind: Literal["prefix-recall"]
    objectives: Annotated[tuple[str, ...], Field(min_length=2), AfterValidator(distinct)]

    files: ClassVar[tuple[str, ...]] = ("metrics.json", "ranks.parquet")

    @override
    def build(self, results: Results) -> style.Drawing:
        from matplotlib.patches import Patch

        width = max(style.WIDTH, 1.8 * len(self.pairs))
        figure = style.blank(width, 3.7)
        axes = figure.subplots(2, len(self.pairs), squeeze=False, sharey="row", height_ratios=(3, 2))
        *others, last = self.objectives
        nowhere, gaps = results.gaps(self.pairs, self.objectives, self.seeds)
        rows: list[tuple[object, ...]] = []
        for j, pair in enumerate(self.pairs):
            runs = {name: results.experiment(*pair, name, self.seeds) for name in self.objectives}
            recalls = {name: results.prefix_recall(some) for name, some in runs.items() if some}
            gains = self._gains(results, runs, recalls)
            self._draw_recalls(axes[0, j], recalls)
            _draw_gains(axes[1, j], gains)
            style.mark_gaps(axes[0, j], gaps[pair], empty=not recalls)
            style.mark_gaps(axes[1, j], [], empty=not gains)
            for panel in axes[:, j]:
                style.places(panel, [str(m) for m in range(max(map(len, recalls.values()), default=1))])
            axes[0, j].set_title(", ".join(pair))
            axes[1, j].set_xlabel("Prefix")
            seeds = {name: seeds_of(some) for name, some in runs.items()}
            for name, recall in recalls.items():
                rows += [(*pair, name, m, PREFIX_RECALL, *one.numbers(), seeds[name]) for m, one in enumerate(recall)]
            rows += [
                (*pair, last, m, "gain_percent", gain.percent, math.nan, *gain.interval, seeds[last])
                for m, gain in enumerate(gains)
            ]
        axes[0, 0].set_ylabel("Recall@20 of the prefix")
        axes[1, 0].set_ylabel("Gain over the\nbest other (%)")
        figure.align_ylabels()
        gain = Patch(label=f"gain of {last}", **BARS)
        style.make_room(figure, style.legend(figure, width, self.objectives, others=[gain], absent=nowhere))
        caption = (
            "Above: share of test users for whom the target's prefix is among the 20 beams after its step; prefix m "
            "is the first m + 1 tokens, numbered as in the paper. Below: by how many percent "
            f"{last} is above the best of {', '.join(others)} at that prefix. "
            f"{results.origin(self)} {results.error_bars(self, self.seeds)}"
        )
        return style.Drawing(figure, pd.DataFrame(rows, columns=COLUMNS), caption)

    def _draw_recalls(self, axes: Axes, recalls: Mapping[str, list[Estimate]]) -> None:
        for series, objective in enumerate(self.objectives):
            recall = recalls.get(objective, [])
            style.draw_line(axes, range(len(recall)), recall, series, len(self.objectives))

    def _gains(
        self, results: Results, runs: Mapping[str, list[Run]], recalls: Mapping[str, list[Estimate]]
    ) -> list[Gain]:
        """Of the last objective over the best other at every prefix; none where either was not run."""
        *others, last = self.objectives
        known = [name for name in others if name in recalls]
        if last not in recalls or not known:
            return []
        gains = []
        for m, ours in enumerate(recalls[last]):
            best = max(known, key=lambda name: recalls[name][m].mean)
            gains.append(_gain(results, m, (runs[last], ours), (runs[best], recalls[best][m])))
        return gains


def _gain(results: Results, m: int, ours: tuple[list[Run], Estimate], theirs: tuple[list[Run], Estimate]) -> Gain:
    """At prefix ``m``, with its interval over the users, or over the seeds if both have the same and that is wider."""
    (our_runs, our_recall), (their_runs, their_recall) = ours, theirs
    percent = gain_percent(our_recall.mean, their_recall.mean)
    our_users, their_users = results.user_prefixes(our_runs), results.user_prefixes(their_runs)
    interval = gain_interval(our_users[:, m], their_users[:, m])
    if [run.seed for run in our_runs] == [run.seed for run in their_runs]:
        by_seed = [gain_percent(*pair) for pair in zip(our_recall.values, their_recall.values, strict=True)]
        interval = wider(interval, seeds_interval(by_seed))
    return Gain(percent, interval)


def _draw_gains(axes: Axes, gains: Sequence[Gain]) -> None:
    percents = np.array([gain.percent for gain in gains])
    ends = np.array([gain.interval for gain in gains]).reshape(-1, 2).T
    heights = np.nan_to_num(percents)
    bars = axes.bar(
        range(len(gains)),
        heights,
        width=0.6,
        yerr=np.maximum([heights - ends[0], ends[1] - heights], 0),
        error_kw={"elinewidth": 1},
        **BARS,
    )
    labels = [ABSENT if math.isnan(percent) else fixed(percent, 1, signed=True) for percent in percents]
    axes.bar_label(bars, labels=labels, padding=2, fontsize=7)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.margins(y=0.25)
    axes.grid(visible=False, axis="x")
