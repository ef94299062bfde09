"""The one look of all figures: readable in grey and by the colour-blind, the same bytes from the same numbers.

Matplotlib is imported where it is used: kinds of figures, which import this, are part of params.yaml's models.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from apao.evaluation.significance import FloatArray
from apao.report.results import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase

# Okabe and Ito's palette, ordered so that neighbours also differ in lightness.
COLOURS = ("#000000", "#E69F00", "#0072B2", "#D55E00", "#56B4E9", "#009E73", "#CC79A7", "#777777")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES: tuple[Any, ...] = ("-", "--", ":", "-.")
ABSENT = "#999999"
"""Grey of what was not run."""
HATCHES = ("", "///", "...", "\\\\\\", "xxx", "---", "+++", "ooo")

_RC: Any = {
    "font.family": "DejaVu Sans",  # ships with matplotlib, so every machine has it
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "legend.handlelength": 2.8,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "errorbar.capsize": 2.5,
    "hatch.linewidth": 0.7,
    "text.parse_math": False,  # a dollar in a label is a dollar
    "pdf.fonttype": 42,  # embeds TrueType, which publishers ask for
    "savefig.dpi": 200,
}
RING: dict[str, Any] = {
    "marker": "o",
    "markersize": 11,
    "markerfacecolor": "none",
    "color": "black",
    "linewidth": 0,
    "clip_on": False,
}
"""A point that the caption explains; whole also at the edge of the axes."""
WIDTH = 7.0
"""Inches: the text width of a two-column page."""


@dataclass(frozen=True)
class Drawing:
    """A figure, the numbers in it, and what its caption says."""

    figure: Figure
    numbers: pd.DataFrame
    caption: str


@contextmanager
def applied() -> Iterator[None]:
    """Draw and save with this style, whatever the user's own matplotlib configuration says."""
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_RC)
        yield


def blank(width: float, height: float) -> Figure:
    """An empty figure of a size in inches, whose parts are laid out so that none covers another."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def draw_line(
    axes: Axes,
    x: Sequence[float],
    estimates: Sequence[Estimate],
    series: int,
    of: int,
    dashes: int = 0,
    scale: float = 1.0,
) -> list[float]:
    """A line through the means, with their intervals as error bars where they are known.

    Returns:
        The places on the x axis: those asked for, which are 1 apart, or, so that the error bars of the
        ``of`` series stand side by side, a little beside them.
    """
    means = [scale * one.mean for one in estimates]
    beyond = scale * reach(estimates)
    shift = 0.0 if np.isnan(beyond).all() else 0.05 * (series - (of - 1) / 2)
    places = [place + shift for place in x]
    axes.errorbar(places, means, yerr=beyond, elinewidth=1, **look(series, dashes))
    return places


def reach(estimates: Sequence[Estimate]) -> FloatArray:
    """How far the intervals reach below and above the means (2, estimates), for error bars; NaN where unknown."""
    ends = np.array([one.interval for one in estimates]).reshape(-1, 2).T
    means = np.array([one.mean for one in estimates])
    return np.maximum(np.stack([means - ends[0], ends[1] - means]), 0)


def look(series: int, dashes: int = 0) -> dict[str, Any]:
    """Colour and marker of a series, line style of a group."""
    return {
        "color": COLOURS[series % len(COLOURS)],
        "marker": MARKERS[series % len(MARKERS)],
        # Later ones are smaller, so that equal values do not hide one another.
        "markersize": max(3.5, 6.5 - 0.9 * series),
        "linestyle": LINES[dashes % len(LINES)],
    }


def legend(
    figure: FigureBase,
    width: float,
    series: Sequence[str],
    groups: Sequence[str] = (),
    first: int = 0,
    others: Sequence[Any] = (),
    absent: Collection[str] = (),
) -> int:
    """Name the series, the groups where there are several, and others, above the panels ``width`` inches wide.

    The names of series that are ``absent`` from all panels are greyed.

    Returns:
        The legend's rows, for ``make_room``.
    """
    from matplotlib.lines import Line2D

    looks = {
        name: {**look(first + i), **({"color": ABSENT} if name in absent else {})} for i, name in enumerate(series)
    }
    handles: list[Any] = [
        Line2D([], [], label=f"{name} (not run)" if name in absent else name, **each) for name, each in looks.items()
    ]
    if len(groups) > 1:
        handles += [
            Line2D([], [], label=name, color="#555555", linestyle=LINES[i % len(LINES)])
            for i, name in enumerate(groups)
        ]
    handles += others
    lengths = [len(str(handle.get_label())) for handle in handles]
    columns = next(n for n in range(len(handles), 0, -1) if n == 1 or _legend_width(lengths, n) <= width)
    shown = figure.legend(handles=handles, loc="outside upper center", ncols=columns)
    for text, name in zip(shown.get_texts(), series, strict=False):
        text.set_color(ABSENT if name in absent else "black")
    return math.ceil(len(handles) / columns)


def _legend_width(lengths: Sequence[int], columns: int) -> float:
    """Inches: a character of the legend's font takes about 0.07, a handle with its gaps 0.6."""
    return sum(0.6 + 0.07 * int(column.max()) for column in np.array_split(np.asarray(lengths), columns))


def mark_gaps(axes: Axes, absent: Sequence[str], empty: bool) -> None:
    """Name the series that a panel lacks in grey, or say of an empty one that nothing was run."""
    if empty:
        axes.text(0.5, 0.5, "not run", ha="center", va="center", color=ABSENT, transform=axes.transAxes)
    elif absent:
        text = fill(f"not run: {', '.join(absent)}", 30)
        axes.text(0.98, 0.98, text, ha="right", va="top", color=ABSENT, fontsize=7, transform=axes.transAxes)


def make_room(figure: Figure, rows: int) -> None:
    """Make a figure higher by a legend's rows, so that they take nothing from the panels."""
    figure.set_figheight(figure.get_figheight() + 0.18 * rows)


def places(axes: Axes, labels: Sequence[str]) -> range:
    """Evenly spaced places on the x axis, one for each label."""
    at = range(len(labels))
    axes.set_xticks(list(at), labels=list(labels))
    axes.set_xlim(-0.5, len(labels) - 0.5)
    return at


def save_pdf(figure: Figure, path: Path) -> None:
    """Write without a date, so that the same numbers give the same bytes."""
    figure.savefig(path, format="pdf", metadata={"CreationDate": None})


def save_png(figure: Figure, path: Path) -> None:
    """Write for screens and reports."""
    figure.savefig(path, format="png", metadata={"Software": None})
