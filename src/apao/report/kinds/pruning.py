"""Figure 1: (b) time of beam search and full sorting; (c) the true top items that each beam step keeps."""

from __future__ import annotations

import math
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator

from apao.errors import UserError
from apao.report import style
from apao.report.paper import NAN
from apao.report.results import Results, entry, number, origin, seeds_sentence
from apao.study.studies import Figure1, decoding_time_file

METHODS = {"beam search": "beam_seconds_per_user", "full sorting": "full_sort_seconds_per_user"}
FIRST_METHOD = 4
"""The methods of (b) take looks that the objectives of (c) leave alone, unless those are more than four."""
COLUMNS = ["panel", "backbone", "series", "x", "value", "sd", "seeds", "unit"]


def build(study: Figure1, results: Results) -> style.Drawing:
    """The figure of a study."""
    figure = style.blank(style.WIDTH, 2.7)
    left, right = np.asarray(figure.subfigures(1, 2))
    timing, machine, timed = _draw_times(left.subplots(), study, results)
    kept, top = _draw_kept(right.subplots(), study, results)
    half = style.WIDTH / 2
    above_left = style.legend(left, half, list(METHODS), study.backbones, first=FIRST_METHOD)
    above_right = style.legend(right, half, study.objectives, study.backbones)
    style.make_room(figure, max(above_left, above_right))
    caption = (
        f"(b) Time of decoding the top items of one user by beam search (beam {timed}) and by full sorting, which "
        f"scores every item, against the number of items; untrained models of the sizes of {study.dataset}'s recipe "
        f"and synthetic codes, measured on {machine}. (c) Share of the {top} items that full sorting ranks "
        "highest whose prefix is still in the beam after each step, mean over test users. "
        f"{origin(results.scale, [results.normalised(run) for run in study.runs()])} "
        + seeds_sentence(study.seeds, "error bars are")
    )
    return style.Drawing(figure, pd.DataFrame([*timing, *kept], columns=COLUMNS), caption)


def _draw_times(axes: Axes, study: Figure1, results: Results) -> tuple[list[tuple[object, ...]], str, int]:
    """Rows, the machine and the beam."""
    rows: list[tuple[object, ...]] = []
    machines: dict[str, None] = {}
    for b, backbone in enumerate(study.backbones):
        path = decoding_time_file(study.dataset, backbone)
        data = results.json(path)
        machines[machine_name(entry(path, data, "device"), number(path, data, "threads"))] = None
        measured = entry(path, data, "rows")
        by_size = {int(number(path, row, "items", within=("rows", i))): i for i, row in enumerate(measured)}
        if absent := [size for size in study.catalogue_sizes if size not in by_size]:
            raise UserError(f"{path}: has no timing of {absent[0]:,} items; delete the file and make it again")
        sizes = sorted(study.catalogue_sizes)
        for s, (method, key) in enumerate(METHODS.items()):
            seconds = [number(path, measured, by_size[size], key, within=("rows",)) for size in sizes]
            axes.plot(sizes, seconds, **style.look(FIRST_METHOD + s, b))
            rows += [
                ("b", backbone, method, size, value, NAN, "", "seconds per user")
                for size, value in zip(sizes, seconds, strict=True)
            ]
    axes.set(xscale="log", yscale="log", xlabel="Items in the catalogue", ylabel="Time per user (s)")
    axes.set_xticks(sizes, labels=[f"{size:,}" for size in sizes])
    axes.minorticks_off()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if _decades(rows) < 3 else (1,)))
    axes.yaxis.set_major_formatter(lambda seconds, _: f"{seconds:g}")
    machine = " and ".join(machines)
    axes.set_title(fill(f"(b) Decoding time on {machine}", 44))
    return rows, machine, int(number(path, data, "beam"))


def _decades(rows: list[tuple[object, ...]]) -> float:
    """Powers of ten that the values span."""
    values = [float(str(row[4])) for row in rows]
    return math.log10(max(values) / min(values))


def _draw_kept(axes: Axes, study: Figure1, results: Results) -> tuple[list[tuple[object, ...]], int]:
    rows: list[tuple[object, ...]] = []
    for b, backbone in enumerate(study.backbones):
        for s, objective in enumerate(study.objectives):
            runs = results.experiment(study.dataset, backbone, objective, study.seeds)
            kept = results.levels(runs, "pruning.json", "kept")
            steps = list(range(1, len(kept) + 1))
            style.draw_line(axes, steps, kept, s, len(study.objectives), b, scale=100)
            rows += [
                ("c", backbone, objective, step, one.mean, one.sd, _seeds(study), "share kept")
                for step, one in zip(steps, kept, strict=True)
            ]
    path = runs[0].folder / "pruning.json"
    beam, top = (int(number(path, results.json(path), key)) for key in ("beam", "top"))
    axes.set(xlabel="Beam step", ylabel=f"True top {top} still in the beam (%)", xticks=steps)
    axes.set_title(f"(c) {study.dataset}: true top {top} kept, beam {beam}")
    return rows, top


def _seeds(study: Figure1) -> str:
    return " ".join(map(str, study.seeds))


def machine_name(device: object, threads: float) -> str:
    """``cpu, 1 thread``: what a time was measured on."""
    return f"{device}, {threads:.0f} thread{'' if threads == 1 else 's'}"
