"""Figure 3: NDCG@10 along each swept hyper-parameter."""

from __future__ import annotations

import pandas as pd

from apao.report import style
from apao.report.results import Results, origin, seeds_sentence
from apao.report.sweeps import METRIC, points, symbol
from apao.study.runs import format_value
from apao.study.studies import Figure3

COLUMNS = ["dataset", "backbone", "objective", "key", "at", "metric", "value", "sd", "seeds", "own_value"]


def build(study: Figure3, results: Results) -> style.Drawing:
    """The figure of a study."""
    keys, objectives = study.keys, study.objectives
    models = [(dataset, backbone) for dataset in study.datasets for backbone in study.backbones]
    figure = style.blank(max(style.WIDTH, 2.6 * len(keys)), 0.3 + 2.1 * len(models))
    # The sweeps of a model share the y axis, so that their effects can be compared.
    axes = figure.subplots(len(models), len(keys), squeeze=False, sharey="row")
    ticks = {
        key: sorted({float(value) for sweep in study.sweeps if sweep.key == key for value in sweep.values})
        for key in keys
    }
    for (i, model), (j, key) in ((row, column) for row in enumerate(models) for column in enumerate(keys)):
        style.places(axes[i, j], [format_value(value) for value in ticks[key]])
        axes[i, j].set_title(f"{', '.join(model)}: along {symbol(key)}")
        axes[i, j].set_xlabel(symbol(key) if i == len(models) - 1 else "")
        axes[i, 0].set_ylabel("NDCG@10")
    rows = []
    for curve in study.curves():
        panel = axes[models.index((curve.dataset, curve.backbone)), keys.index(curve.key)]
        found = points(study, results, curve)
        at = [ticks[curve.key].index(point.value) for point in found]
        series = objectives.index(curve.objective)
        drawn = style.draw_line(panel, at, [point.test for point in found], series, len(objectives))
        for x, point in zip(drawn, found, strict=True):
            if point.own:
                panel.plot(x, point.test.mean, **style.RING)
            where = (curve.dataset, curve.backbone, curve.objective, curve.key, point.value)
            seeds = " ".join(map(str, study.seeds))
            rows.append((*where, METRIC, point.test.mean, point.test.sd, seeds, point.own))
    style.make_room(figure, style.legend(figure, figure.get_figwidth(), objectives))
    caption = (
        f"NDCG@10 on the test items (code level) along {', '.join(map(symbol, keys))}, one changed at a time, the "
        "others at the objective's own values; a ring marks the value the objective has anyway. The values on an x "
        "axis are evenly spaced, not to scale; y axes do not start at 0. "
        f"{origin(results.scale, [results.normalised(run) for run in study.runs()], objectives)} "
        + seeds_sentence(study.seeds, "error bars are")
    )
    return style.Drawing(figure, pd.DataFrame(rows, columns=COLUMNS), caption)
