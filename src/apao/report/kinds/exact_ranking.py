"""A figure of a metric by beam search beside the same metric by exact scoring of every code."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pandas as pd
from typing_extensions import override

from apao.data.histories import FloatArray
from apao.errors import UserError
from apao.evaluation.metrics import MetricName, code_metrics, metric_title
from apao.report import style
from apao.report.base import FigureStudy
from apao.report.results import ESTIMATE, Estimate, Results, mean_interval, seeds_of, with_seeds
from apao.report.values import number, numbers
from apao.study.runs import Run
from apao.study.studies import STUDIES, GridStudy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.patches import Patch

FILE = "exact.json"
WAYS = {"beam": "beam search", "exact": "exact scoring"}
"""Key of the ranks in exact.json to its name in the figure."""
HEIGHT = 0.38
"""Of a bar; two make a group."""
LOOKS: dict[str, Any] = {
    "beam": {"facecolor": "#bbbbbb", "edgecolor": "black", "linewidth": 0.6},
    "exact": {"facecolor": "#56B4E9", "edgecolor": "black", "linewidth": 0.6, "hatch": style.HATCHES[1]},
}
COLUMNS = ["dataset", "backbone", "objective", "way", "metric", *ESTIMATE, "seeds", "users"]


@STUDIES.register
class ExactRanking(GridStudy, FigureStudy):
    """Is a gain in the model or in what beam search keeps? Both rankings of the same test users, per objective."""

    kind: Literal["exact-ranking"]
    metric: MetricName = "recall@10"
    """Code-level metric."""

    files: ClassVar[tuple[str, ...]] = (FILE,)

    @override
    def build(self, results: Results) -> style.Drawing:
        figure = style.blank(style.WIDTH, 0.9 + 0.42 * len(self.objectives) * len(self.pairs))
        panels = figure.subplots(len(self.pairs), 1, squeeze=False, sharex=True)[:, 0]
        rows: list[tuple[object, ...]] = []
        users: set[str] = set()
        furthest = 0.0
        for panel, pair in zip(panels, self.pairs, strict=True):
            scores: dict[str, list[Estimate]] = {}
            labels: list[str] = []
            for objective in self.objectives:
                runs = results.experiment(*pair, objective, self.seeds)
                users |= {_users(results, run) for run in runs}
                labels.append(with_seeds(objective, runs, self.seeds))
                scores[objective] = [self._score(results, runs, way) for way in WAYS]
                ranked = ", ".join(dict.fromkeys(_users(results, run) for run in runs))
                rows += [
                    (*pair, objective, way, self.metric, *one.numbers(), seeds_of(runs), ranked)
                    for way, one in zip(WAYS, scores[objective], strict=True)
                ]
            furthest = max(furthest, _draw(panel, scores))
            panel.set_yticks(range(len(labels)), labels=labels)
            panel.set_title(", ".join(pair))
        # The panels share their axis.
        panels[0].set_xlim(0, 1.25 * furthest or 1.0)
        panels[-1].set_xlabel(f"{metric_title(self.metric)}, code level")
        style.make_room(figure, style.legend(figure, style.WIDTH, (), others=_handles()))
        caption = (
            f"{metric_title(self.metric)} (code level) of {' or '.join(sorted(users)) or 'no'} test users by beam "
            "search and by exact scoring, which ranks every code by the score that beam search would give it and "
            "prunes nothing. A gain that exact scoring shows too is in the model, not in what the beam keeps. "
            f"{results.origin(self)} {results.error_bars(self, self.seeds)}"
        )
        return style.Drawing(figure, pd.DataFrame(rows, columns=COLUMNS), caption)

    def _score(self, results: Results, runs: list[Run], way: str) -> Estimate:
        """The metric of an experiment, with its interval over the users."""
        per_user = [user_gains(results, run, way, self.metric) for run in runs]
        found = Estimate(tuple(float(one.mean()) for one in per_user))
        # Runs that were measured with other numbers of users are of other samples of them.
        if runs and len({len(one) for one in per_user}) == 1:
            return replace(found, over_users=mean_interval(np.mean(per_user, axis=0)))
        return found


def user_gains(results: Results, run: Run, way: str, metric: str) -> FloatArray:
    """The metric of each sampled user (users,), from the ranks; 0 is a code that is not ranked."""
    path = results.file(run, FILE)
    ranks = np.asarray(numbers(path, results.json(path), "ranks", way))
    if (ranks % 1 != 0).any():
        raise UserError(f"{path}: a rank at ranks.{way} is no whole number; delete the file and run apao exact again")
    return code_metrics(ranks.astype(np.int64))[metric]


def _users(results: Results, run: Run) -> str:
    """``1,000 of 4,905``."""
    path = results.file(run, FILE)
    ranked, known = (int(number(path, results.json(path), key)) for key in ("users", "of_users"))
    return f"{ranked:,} of {known:,}" if ranked < known else f"{known:,}"


def _draw(axes: Axes, scores: dict[str, list[Estimate]]) -> float:
    """Two bars per objective, the first objective on top; returns the largest value drawn, 0 if none."""
    for i, way in enumerate(WAYS):
        estimates = [found[i] for found in scores.values()]
        bars = axes.barh(
            np.arange(len(estimates)) + (i - 0.5) * HEIGHT,
            [one.mean if one.values else 0.0 for one in estimates],
            height=HEIGHT,
            xerr=style.reach(estimates),
            error_kw={"elinewidth": 1},
            **LOOKS[way],
        )
        labels = [f"{one.mean:.4f}" if one.values else "not run" for one in estimates]
        for text, one in zip(axes.bar_label(bars, labels=labels, padding=4, fontsize=7.5), estimates, strict=True):
            text.set_color("black" if one.values else style.ABSENT)
    axes.invert_yaxis()
    axes.grid(visible=False)
    ends = [(one.mean, *one.interval) for found in scores.values() for one in found if one.values]
    return float(np.nanmax(ends)) if ends else 0.0


def _handles() -> list[Patch]:
    from matplotlib.patches import Patch

    return [Patch(label=label, **LOOKS[way]) for way, label in WAYS.items()]
