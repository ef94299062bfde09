"""A figure of (b) the time of beam search and full sorting and (c) the true top items kept by each beam step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import pandas as pd
from typing_extensions import override

from apao.report import style
from apao.report.base import FigureStudy
from apao.report.paper import NAN
from apao.report.results import Results, entry, machine, number, seed_list, seeds_sentence
from apao.study.paths import decoding_time_file
from apao.study.runs import Run
from apao.study.studies import STUDIES, Names, Seeds, grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes

METHODS = {"beam search": "beam_seconds_per_user", "full sorting": "full_sort_seconds_per_user"}
FIRST_METHOD = 4
"""First series of (b), so that up to four objectives of (c) look different from the methods of (b)."""
COLUMNS = ["panel", "backbone", "series", "x", "value", "sd", "seeds", "unit"]
Row = tuple[object, ...]


@STUDIES.register
class Pruning(FigureStudy):
    """(b) Time of beam search and full sorting; (c) top items that beam search loses (the paper's Figure 1)."""

    kind: Literal["pruning"]
    dataset: str
    backbones: Names
    objectives: Names
    seeds: Seeds

    files: ClassVar[tuple[str, ...]] = ("pruning.json",)

    @override
    def runs(self) -> list[Run]:
        return grid((self.dataset,), self.backbones, self.objectives, self.seeds)

    @override
    def inputs(self) -> list[Path]:
        return [decoding_time_file(self.dataset, backbone) for backbone in self.backbones]

    @override
    def build(self, results: Results) -> style.Drawing:
        figure = style.blank(style.WIDTH, 2.7)
        left, right = np.asarray(figure.subfigures(1, 2))
        timing, machines, timed = self._draw_times(left.subplots(), results)
        kept, top = self._draw_kept(right.subplots(), results)
        half = style.WIDTH / 2
        above_left = style.legend(left, half, list(METHODS), self.backbones, first=FIRST_METHOD)
        above_right = style.legend(right, half, self.objectives, self.backbones)
        style.make_room(figure, max(above_left, above_right))
        caption = (
            f"(b) Time to decode the top items of one user by beam search (beam {timed}) and by full sorting, which "
            f"scores every item, against the number of items; untrained models with the sizes of {self.dataset}'s "
            f"recipe and synthetic codes, measured on {machines}. (c) Share of the {top} items ranked highest by full "
            "sorting whose prefix is still in the beam after each step, mean over test users. "
            f"{results.origin(self)} " + seeds_sentence(self.seeds, "error bars are")
        )
        return style.Drawing(figure, pd.DataFrame([*timing, *kept], columns=COLUMNS), caption)

    def _draw_times(self, axes: Axes, results: Results) -> tuple[list[Row], str, int]:
        """Draw (b); returns its rows, the machines and the beam size."""
        rows: list[Row] = []
        machines: dict[str, None] = {}
        for b, backbone in enumerate(self.backbones):
            path = results.collection.place(decoding_time_file(self.dataset, backbone))
            data = results.json(path)
            machines[machine(path, data)] = None
            for s, (method, key) in enumerate(METHODS.items()):
                seconds = _seconds(path, data, key)
                axes.plot(list(seconds), list(seconds.values()), **style.look(FIRST_METHOD + s, b))
                rows += [
                    ("b", backbone, method, size, value, NAN, "", "seconds per user") for size, value in seconds.items()
                ]
        _label_times(axes, sizes=list(seconds), values=[float(str(row[4])) for row in rows])
        measured_on = " and ".join(machines)
        axes.set_title(fill(f"(b) Decoding time on {measured_on}", 44))
        return rows, measured_on, int(number(path, data, "beam"))

    def _draw_kept(self, axes: Axes, results: Results) -> tuple[list[Row], int]:
        """Draw (c); returns its rows and the number of top items."""
        rows: list[Row] = []
        for b, backbone in enumerate(self.backbones):
            for s, objective in enumerate(self.objectives):
                runs = results.experiment(self.dataset, backbone, objective, self.seeds)
                kept = results.levels(runs, "pruning.json", "kept")
                steps = list(range(1, len(kept) + 1))
                style.draw_line(axes, steps, kept, s, len(self.objectives), b, scale=100)
                rows += [
                    ("c", backbone, objective, step, one.mean, one.sd, seed_list(self.seeds), "share kept")
                    for step, one in zip(steps, kept, strict=True)
                ]
        path = results.file(runs[0], "pruning.json")
        beam, top = (int(number(path, results.json(path), key)) for key in ("beam", "top"))
        axes.set(xlabel="Beam step", ylabel=f"True top {top} still in the beam (%)", xticks=steps)
        axes.set_title(f"(c) {self.dataset}: true top {top} kept, beam {beam}")
        return rows, top


def _seconds(path: Path, data: object, key: str) -> dict[int, float]:
    """Number of items to seconds per user of one method, sorted by the number of items."""
    measured = entry(path, data, "rows")
    found = {
        int(number(path, measured, i, "items", within=("rows",))): number(path, measured, i, key, within=("rows",))
        for i in range(len(measured))
    }
    return dict(sorted(found.items()))


def _label_times(axes: Axes, sizes: Sequence[int], values: Sequence[float]) -> None:
    from matplotlib.ticker import LogLocator

    axes.set(xscale="log", yscale="log", xlabel="Items in the catalogue", ylabel="Time per user (s)")
    axes.set_xticks(sizes, labels=[f"{size:,}" for size in sizes])
    axes.minorticks_off()
    decades = math.log10(max(values) / min(values))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 3 else (1,)))
    axes.yaxis.set_major_formatter(lambda seconds, _: f"{seconds:g}")
