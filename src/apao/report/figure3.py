"""Figure 3: NDCG@10 along beta and along eta."""

from __future__ import annotations

import pandas as pd

from apao.report import style
from apao.report.results import Results, origin, seeds_sentence
from apao.report.sweeps import SYMBOLS, curve, swept_keys
from apao.runs import format_value
from apao.studies import Figure3

COLUMNS = ["dataset", "backbone", "objective", "key", "at", "metric", "value", "sd", "seeds", "own_value"]


def build(study: Figure3, results: Results) -> style.Drawing:
    """The figure of a study."""
    keys = swept_keys(study)
    rows_of_panels = [(dataset, backbone) for dataset in study.datasets for backbone in study.backbones]
    figure = style.blank(style.WIDTH, 0.3 + 2.1 * len(rows_of_panels))
    # The two sweeps of a model share the y axis, so that their effects can be compared.
    axes = figure.subplots(len(rows_of_panels), len(keys), squeeze=False, sharey="row")
    rows = []
    for i, (dataset, backbone) in enumerate(rows_of_panels):
        for j, key in enumerate(keys):
            panel = axes[i, j]
            values = sorted(getattr(study, key))
            at = style.places(panel, [format_value(value) for value in values])
            for s, objective in enumerate(study.objectives):
                points = curve(study, results, dataset, backbone, objective, key)
                drawn = style.draw_line(panel, at, [point.test for point in points], s, len(study.objectives))
                for x, point in zip(drawn, points, strict=True):
                    one = point.test
                    if point.own:
                        panel.plot(x, one.mean, **style.RING)
                    where = (dataset, backbone, objective, key, point.value)
                    seeds = " ".join(map(str, study.seeds))
                    rows.append((*where, "ndcg@10", one.mean, one.sd, seeds, point.own))
            panel.set_title(f"{dataset}, {backbone}: along {SYMBOLS[key]}")
            panel.set_xlabel(SYMBOLS[key] if i == len(rows_of_panels) - 1 else "")
        axes[i, 0].set_ylabel("NDCG@10")
    style.make_room(figure, style.legend(figure, style.WIDTH, study.objectives))
    caption = (
        f"NDCG@10 on the test items (code level) along {' and '.join(SYMBOLS[key] for key in keys)}, one changed at a "
        "time, the other at the objective's own value; a ring marks the value the objective has anyway. The values on "
        "an x axis are evenly spaced, not to scale; y axes do not start at 0. "
        f"{origin(results.scale, [results.normalised(run) for run in study.runs()], study.objectives)} "
        + seeds_sentence(study.seeds, "error bars are")
    )
    return style.Drawing(figure, pd.DataFrame(rows, columns=COLUMNS), caption)
