"""A figure of (b) the time of beam search and exact scoring and (c) the exact top items kept by each beam step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, ClassVar, Literal

import pandas as pd
from typing_extensions import override

from apao.errors import UserError
from apao.evaluation.significance import FEWEST_SEEDS
from apao.report import style
from apao.report.base import FigureStudy
from apao.report.results import ESTIMATE, Results, few, machine, seeds_of
from apao.report.values import entries, number
from apao.study.paths import decoding_time_file
from apao.study.runs import Run
from apao.study.studies import STUDIES, Names, Seeds, grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes

METHODS = {"beam search": "beam_seconds_per_user", "exact scoring": "exact_seconds_per_user"}
FIRST_METHOD = 4
"""The methods of (b) take looks that the objectives of (c) leave alone, unless those are more than four."""
COLUMNS = ["panel", "backbone", "series", "x", *ESTIMATE, "seeds", "unit"]
THIN = f"Thin lines are single seeds, of which fewer than {FEWEST_SEEDS} have no interval. "
Row = tuple[object, ...]


@STUDIES.register
class Pruning(FigureStudy):
    """(b) Time of beam search and exact scoring; (c) top items that beam search loses (the paper's Figure 1)."""

    kind: Literal["pruning"]
    dataset: str
    backbones: Names
    objectives: Names
    seeds: Seeds
    times: bool = True
    """Whether (b) is drawn; no published file has decoding times."""

    files: ClassVar[tuple[str, ...]] = ("pruning.json",)

    @override
    def runs(self) -> list[Run]:
        return grid((self.dataset,), self.backbones, self.objectives, self.seeds)

    @override
    def inputs(self) -> list[Path]:
        return [decoding_time_file(self.dataset, backbone) for backbone in self.backbones if self.times]

    @override
    def build(self, results: Results) -> style.Drawing:
        figure = style.blank(style.WIDTH, 2.7)
        panels = figure.subfigures(1, 1 + self.times, squeeze=False)[0]
        width = style.WIDTH / len(panels)
        timing: list[Row] = []
        said = ""
        letter, above = "", 0
        if self.times:
            timing, timed = self._draw_times(panels[0].subplots(), results)
            said, letter = f"Panels have the paper's letters. (b) {timed} ", "(c) "
            above = style.legend(panels[0], width, list(METHODS), self.backbones, first=FIRST_METHOD) if timing else 0
        kept, of_whom = self._draw_kept(panels[-1].subplots(), letter, results)
        nowhere, _ = results.gaps(product([self.dataset], self.backbones), self.objectives, self.seeds)
        style.make_room(
            figure, max(above, style.legend(panels[-1], width, self.objectives, self.backbones, absent=nowhere))
        )
        caption = (
            f"{said}{letter}Share of the {of_whom}. "
            f"{THIN if self._draws_single(results) else ''}"
            f"{results.origin(self)} {results.error_bars(self, self.seeds, over_users=False)}"
        )
        return style.Drawing(figure, pd.DataFrame([*timing, *kept], columns=COLUMNS), caption)

    def _draws_single(self, results: Results) -> bool:
        places = product([self.dataset], self.backbones, self.objectives)
        return any(_singly(results.experiment(*place, self.seeds)) for place in places)

    def _draw_times(self, axes: Axes, results: Results) -> tuple[list[Row], str]:
        """Rows, and what they are in words."""
        rows: list[Row] = []
        machines: dict[str, None] = {}
        for b, backbone in enumerate(self.backbones):
            path = results.collection.place(decoding_time_file(self.dataset, backbone))
            if results.collection.gaps and not path.exists():
                continue
            data = results.json(path)
            machines[machine(path, data)] = None
            for s, (method, key) in enumerate(METHODS.items()):
                seconds = _seconds(path, data, key)
                axes.plot(list(seconds), list(seconds.values()), **style.look(FIRST_METHOD + s, b))
                rows += [
                    ("b", backbone, method, size, value, math.nan, math.nan, math.nan, "", "seconds per user")
                    for size, value in seconds.items()
                ]
        if not rows:
            style.mark_gaps(axes, [], empty=True)
            axes.set(title="(b) Decoding time", xticks=[], yticks=[])
            return rows, "Time of decoding: not measured."
        _label_times(axes, sizes=list(seconds), values=[float(str(row[4])) for row in rows])
        measured_on = " and ".join(machines)
        axes.set_title(fill(f"(b) Decoding time on {measured_on}", 44))
        return rows, (
            f"Time of decoding the top items of one user by beam search (beam {number(path, data, 'beam'):.0f}) and by "
            "exact scoring, which scores every item, against the number of items; untrained models of the sizes of "
            f"{self.dataset}'s recipe and synthetic codes, measured on {measured_on}."
        )

    def _draw_kept(self, axes: Axes, letter: str, results: Results) -> tuple[list[Row], str]:
        """Rows, and what they are shares of, in words."""
        rows: list[Row] = []
        found: list[Run] = []
        for b, backbone in enumerate(self.backbones):
            for s, objective in enumerate(self.objectives):
                runs = results.experiment(self.dataset, backbone, objective, self.seeds)
                found += runs
                kept = results.levels(runs, "pruning.json", "kept")
                steps = list(range(1, len(kept) + 1))
                style.draw_line(axes, steps, kept, s, len(self.objectives), b, scale=100)
                if _singly(runs):
                    for seed in range(len(runs)):
                        values = [100 * one.values[seed] for one in kept]
                        axes.plot(steps, values, **(style.look(s, b) | {"marker": "", "linewidth": 0.6, "alpha": 0.6}))
                rows += [
                    ("c", backbone, objective, step, *one.numbers(), seeds_of(runs), "share kept")
                    for step, one in zip(steps, kept, strict=True)
                ]
        if not found:
            style.mark_gaps(axes, [], empty=True)
            return rows, "exact top codes that the beam keeps: not measured"
        beam, top, users = _measured_alike([results.file(run, "pruning.json") for run in found], results)
        axes.set(xlabel="Beam step", ylabel=f"Exact top {top} still in the beam (%)")
        axes.set_xticks(sorted({int(str(row[3])) for row in rows}))
        where = self.dataset if len(self.backbones) > 1 else f"{self.dataset}, {self.backbones[0]}"
        axes.set_title(f"{letter}{where}: exact top {top} kept, beam {beam}")
        return rows, (
            f"{top} codes with the highest exact scores whose prefix is still in the beam after each step, mean over "
            f"{users:,} test users"
        )


def _singly(runs: Sequence[Run]) -> bool:
    """Whether the seeds are drawn one by one, because they are too few for an interval."""
    return len(runs) > 1 and few(runs)


def _measured_alike(paths: Sequence[Path], results: Results) -> tuple[int, int, int]:
    """Beam, number of top codes and users, which are those of all files.

    Raises:
        UserError: when they differ.
    """
    measured = {
        path: tuple(int(number(path, results.json(path), key)) for key in ("beam", "top", "users")) for path in paths
    }
    first, *others = paths
    for path in others:
        if measured[path] != measured[first]:
            raise UserError(
                f"{path}: beam, top and users are {measured[path]}, in {first} {measured[first]}; "
                "delete one and measure both runs alike (apao exact RUN)"
            )
    beam, top, users = measured[first]
    return beam, top, users


def _seconds(path: Path, data: object, key: str) -> dict[int, float]:
    """Number of items to seconds per user of one method, sorted by the number of items."""
    found = {
        int(number(path, data, "rows", i, "items")): number(path, data, "rows", i, key)
        for i in range(len(entries(path, data, "rows")))
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
