"""A figure of the cross-entropy per epoch on training and validation items."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import pandas as pd
from typing_extensions import override

from apao.report import style
from apao.report.base import FigureStudy
from apao.report.results import Results
from apao.study.studies import STUDIES, GridStudy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TERMS = {"valid_ce": "validation", "train_ce": "training"}
"""Column of history.csv to its name. The cross-entropy, unlike the loss, is comparable between objectives."""
FIRST = 3
"""Epochs whose losses need not be shown."""
MARKED = 5
"""Epochs between markers of a line."""
COLUMNS = ["dataset", "backbone", "objective", "seed", "epoch", "quantity", "value", "best"]


@STUDIES.register
class TrainingCurves(GridStudy, FigureStudy):
    """Cross-entropy per epoch on training and validation items, one pair of lines per run."""

    kind: Literal["training-curves"]

    files: ClassVar[tuple[str, ...]] = ("history.csv",)

    @override
    def build(self, results: Results) -> style.Drawing:
        width = max(style.WIDTH, 3.2 * len(self.pairs))
        figure = style.blank(width, 2.9)
        axes = figure.subplots(1, len(self.pairs), squeeze=False, sharey="row")[0]
        panels = {pair: self._curves(results, *pair) for pair in self.pairs}
        frames = [frame for panel in panels.values() for frame in panel]
        nowhere, gaps = results.gaps(self.pairs, self.objectives, self.seeds)
        for panel, (pair, curves) in zip(axes, panels.items(), strict=True):
            self._draw(panel, curves)
            style.mark_gaps(panel, gaps[pair], empty=not curves)
            panel.set(title=", ".join(pair), xlabel="Epoch")
        axes[0].set_ylabel("Cross-entropy per token (nats)")
        cut = _cut(frames)
        if cut is not None:
            axes[0].set_ylim(top=cut)
        style.make_room(figure, style.legend(figure, width, self.objectives, list(TERMS.values()), absent=nowhere))
        caption = (
            "Mean cross-entropy of the target's tokens (nats) on the validation items after every epoch, and on the "
            "training items during it, while the weights change. A ring marks the epoch whose weights are kept: that "
            "with the lowest validation loss of the objective itself; training stops when no later one is better. "
            f"{'' if cut is None else f'The larger losses of the first {FIRST} epochs are above the figure. '}"
            f"{results.origin(self)}"
        )
        numbers = pd.concat(frames) if frames else pd.DataFrame(columns=COLUMNS)
        return style.Drawing(figure, numbers, caption)

    def _curves(self, results: Results, dataset: str, backbone: str) -> list[pd.DataFrame]:
        """One frame of ``COLUMNS`` per run and term, in the order of the objectives."""
        names = {"dataset": dataset, "backbone": backbone}
        runs = [
            (name, run) for name in self.objectives for run in results.experiment(dataset, backbone, name, self.seeds)
        ]
        return [
            _curve(results.history(run), term).assign(**names, objective=name, seed=run.seed)[COLUMNS]
            for name, run in runs
            for term in TERMS
        ]

    def _draw(self, axes: Axes, curves: list[pd.DataFrame]) -> None:
        from matplotlib.ticker import MaxNLocator

        for curve in curves:
            objective, quantity = str(curve["objective"].iloc[0]), str(curve["quantity"].iloc[0])
            series, dashes = self.objectives.index(objective), list(TERMS).index(quantity)
            look: dict[str, Any] = style.look(series, dashes) | {"markersize": 3.5}
            # Markers at every epoch would cover the line. The offset differs by series.
            axes.plot(curve["epoch"], curve["value"], markevery=(series % MARKED, MARKED), **look)
            if dashes == 0:
                kept = curve[curve["best"]]
                axes.plot(kept["epoch"], kept["value"], **(style.RING | {"color": look["color"]}))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _cut(curves: list[pd.DataFrame]) -> float | None:
    """Where the axis ends so that the first losses do not flatten the rest; None if the trainings are short."""
    later = [curve.loc[curve["epoch"] > FIRST, "value"] for curve in curves]
    if not later or max(map(len, later)) < 2 * FIRST:
        return None
    return 1.05 * float(pd.concat(later).max())


def _curve(history: pd.DataFrame, term: str) -> pd.DataFrame:
    """The term per epoch, NaN if the objective does not have it; ``best`` marks the epoch whose weights are kept."""
    values = history[term] if term in history else pd.Series(float("nan"), index=history.index)
    frame = pd.DataFrame({"epoch": history["epoch"], "quantity": term, "value": values})
    return frame.assign(best=history["epoch"] == history.loc[history["best"], "epoch"].iloc[-1])
