"""A figure of a metric against each swept hyper-parameter."""

from __future__ import annotations

from typing import Literal

import pandas as pd
from typing_extensions import override

from apao.evaluation.metrics import metric_title
from apao.report import style
from apao.report.base import FigureStudy
from apao.report.results import Results, seed_list, seeds_sentence
from apao.report.sweeps import points, symbol
from apao.study.runs import format_value
from apao.study.studies import STUDIES
from apao.study.sweeps import SweepStudy

COLUMNS = ["dataset", "backbone", "objective", "key", "at", "metric", "value", "sd", "seeds", "own_value"]


@STUDIES.register
class SweepFigure(SweepStudy, FigureStudy):
    """The metric against each swept key (the paper's Figure 3)."""

    kind: Literal["sweep"]

    @override
    def build(self, results: Results) -> style.Drawing:
        keys, objectives = self.keys, self.objectives
        models = [(dataset, backbone) for dataset in self.datasets for backbone in self.backbones]
        figure = style.blank(max(style.WIDTH, 2.6 * len(keys)), 0.3 + 2.1 * len(models))
        # The panels of a model share the y axis, so that the effects of the keys can be compared.
        axes = figure.subplots(len(models), len(keys), squeeze=False, sharey="row")
        ticks = {
            key: sorted({float(value) for sweep in self.sweeps if sweep.key == key for value in sweep.values})
            for key in keys
        }
        for (i, model), (j, key) in ((row, column) for row in enumerate(models) for column in enumerate(keys)):
            style.places(axes[i, j], [format_value(value) for value in ticks[key]])
            axes[i, j].set_title(f"{', '.join(model)}: along {symbol(key)}")
            axes[i, j].set_xlabel(symbol(key) if i == len(models) - 1 else "")
            axes[i, 0].set_ylabel(metric_title(self.metric))
        rows = []
        for curve in self.curves():
            panel = axes[models.index((curve.dataset, curve.backbone)), keys.index(curve.key)]
            found = points(self, results, curve)
            at = [ticks[curve.key].index(point.value) for point in found]
            series = objectives.index(curve.objective)
            drawn = style.draw_line(panel, at, [point.test for point in found], series, len(objectives))
            for x, point in zip(drawn, found, strict=True):
                if point.own:
                    panel.plot(x, point.test.mean, **style.RING)
                where = (curve.dataset, curve.backbone, curve.objective, curve.key, point.value)
                rows.append((*where, self.metric, point.test.mean, point.test.sd, seed_list(self.seeds), point.own))
        style.make_room(figure, style.legend(figure, figure.get_figwidth(), objectives))
        caption = (
            f"{metric_title(self.metric)} on the test items (code level) against {', '.join(map(symbol, keys))}, one "
            "changed at a time, the others at the objective's own values; a ring marks the objective's own "
            "value. The values on an x axis are evenly spaced, not to scale; y axes do not start at 0. "
            f"{results.origin(self, objectives)} " + seeds_sentence(self.seeds, "error bars are")
        )
        return style.Drawing(figure, pd.DataFrame(rows, columns=COLUMNS), caption)
