"""A figure of a metric against each swept hyper-parameter."""

from __future__ import annotations

from itertools import product
from typing import ClassVar, Literal

import pandas as pd
from typing_extensions import override

from apao.evaluation.metrics import metric_title
from apao.report import style
from apao.report.base import FigureStudy
from apao.report.results import ESTIMATE, Results, seeds_of
from apao.report.sweeps import points, symbol
from apao.study.runs import format_value
from apao.study.studies import STUDIES
from apao.study.sweeps import SweepStudy

COLUMNS = ["dataset", "backbone", "objective", "key", "at", "metric", *ESTIMATE, "seeds", "own_value"]


@STUDIES.register
class SweepFigure(SweepStudy, FigureStudy):
    """The metric against each swept key (the paper's Figure 3)."""

    kind: Literal["sweep"]

    files: ClassVar[tuple[str, ...]] = ("metrics.json", "ranks.parquet")

    @override
    def build(self, results: Results) -> style.Drawing:
        keys, objectives = self.keys, self.objectives
        models = list(product(self.datasets, self.backbones))
        figure = style.blank(max(style.WIDTH, 2.6 * len(keys)), 0.3 + 2.1 * len(models))
        # The panels of a model share the y axis, so that the effects of the keys can be compared.
        axes = figure.subplots(len(models), len(keys), squeeze=False, sharey="row")
        ticks = {
            key: sorted({float(value) for sweep in self.sweeps if sweep.key == key for value in sweep.values})
            for key in keys
        }
        for (i, model), (j, key) in product(enumerate(models), enumerate(keys)):
            style.places(axes[i, j], [format_value(value) for value in ticks[key]])
            axes[i, j].set_title(f"{', '.join(model)}: along {symbol(key)}")
            axes[i, j].set_xlabel(symbol(key) if i == len(models) - 1 else "")
            axes[i, 0].set_ylabel(metric_title(self.metric))
        rows = []
        for curve in self.curves():
            panel = axes[models.index((curve.dataset, curve.backbone)), keys.index(curve.key)]
            found = [point for point in points(self, results, curve) if point.runs]
            at = [ticks[curve.key].index(point.value) for point in found]
            series = objectives.index(curve.objective)
            scores = [results.test_metric(point.runs, self.metric) for point in found]
            drawn = style.draw_line(panel, at, scores, series, len(objectives))
            for x, point, score in zip(drawn, found, scores, strict=True):
                if point.own:
                    panel.plot(x, score.mean, **style.RING)
                where = (curve.dataset, curve.backbone, curve.objective, curve.key, point.value)
                rows.append((*where, self.metric, *score.numbers(), seeds_of(point.runs), point.own))
        swept = {(row[0], row[1]) for row in rows}
        for i, model in enumerate(models):
            for panel in axes[i]:
                style.mark_gaps(panel, [], empty=model not in swept)
        absent = set(objectives) - {row[2] for row in rows}
        style.make_room(figure, style.legend(figure, figure.get_figwidth(), objectives, absent=absent))
        caption = (
            f"{metric_title(self.metric)} on the test items (code level) along {', '.join(map(symbol, keys))}, one "
            "changed at a time, the others at the objective's own values; a ring marks the value the objective has "
            "anyway. The values on an x axis are evenly spaced, not to scale; y axes do not start at 0. "
            f"{results.origin(self, objectives)} {results.error_bars(self, self.seeds)}"
        )
        return style.Drawing(figure, pd.DataFrame(rows, columns=COLUMNS), caption)
