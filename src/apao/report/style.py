"""Style of all figures: readable in grey and by the colour-blind; equal numbers give equal bytes.

Matplotlib is imported in the functions that use it, because this module is imported whenever params.yaml is read.
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

from apao.data.histories import FloatArray
from apao.report.results import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase

# Okabe and Ito's palette, ordered so that neighbours also differ in lightness.
COLOURS = ("#000000", "#E69F00", "#0072B2", "#D55E00", "#56B4E9", "#009E73", "#CC79A7", "#777777")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES: tuple[Any, ...] = ("-", "--", ":", "-.")
ABSENT = "#999999"
"""Colour (grey) of series without a run."""
HATCHES = ("", "///", "...", "\\\\\\", "xxx", "---", "+++", "ooo")

_RC: Any = {
    "font.family": "DejaVu Sans",  # ships with matplotlib
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
    "pdf.fonttype": 42,  # embeds TrueType fonts, as publishers require
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
"""Marker of a point that the caption explains, not clipped at the edge of the axes."""
WIDTH = 7.0
"""Inches: the text width of a two-column page."""


@dataclass(frozen=True)
class Drawing:
    """A figure, its numbers and its caption."""

    figure: Figure
    numbers: pd.DataFrame
    caption: str


@contextmanager
def applied() -> Iterator[None]:
    """Draw and save with this style, ignoring the user's matplotlib configuration."""
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_RC)
        yield


def blank(width: float, height: float) -> Figure:
    """An empty figure of the given size in inches, with constrained layout."""
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
        The positions drawn: ``x``, shifted slightly by series if there are error bars, so that these do not overlap.
    """
    means = [scale * one.mean for one in estimates]
    beyond = scale * reach(estimates)
    bars = not np.isnan(beyond).all()
    places = [place + (0.08 * (series - (of - 1) / 2) if bars else 0.0) for place in x]
    # A marker of full size would hide a short error bar.
    size = {"markersize": 3.5} if bars else {}
    axes.errorbar(places, means, yerr=beyond, elinewidth=1, **(look(series, dashes) | size))
    return places


def reach(estimates: Sequence[Estimate]) -> FloatArray:
    """How far the intervals reach below and above the means (2, estimates), for error bars; NaN where unknown."""
    ends = np.array([one.interval for one in estimates]).reshape(-1, 2).T
    means = np.array([one.mean for one in estimates])
    return np.maximum(np.stack([means - ends[0], ends[1] - means]), 0)


def look(series: int, dashes: int = 0) -> dict[str, Any]:
    """Colour and marker of the series with this index, line style of the group with the index ``dashes``."""
    return {
        "color": COLOURS[series % len(COLOURS)],
        # The ninth series has the first one's colour, but not its marker.
        "marker": MARKERS[(series + series // len(COLOURS)) % len(MARKERS)],
        # Later series have smaller markers, so that equal values do not hide one another.
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
    """Add a legend above the panels, which are ``width`` inches wide.

    Args:
        figure: to add to.
        width: in inches.
        series: names of the series, whose looks begin at the index ``first``.
        groups: names of the line styles, shown if there are several.
        first: index of the first series.
        others: further handles.
        absent: names of series without a run, shown in grey.

    Returns:
        Number of rows of the legend, for ``make_room``.
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
    """Width in inches: about 0.07 per character of the legend's font, 0.6 per handle with its gaps."""
    return sum(0.6 + 0.07 * int(column.max()) for column in np.array_split(np.asarray(lengths), columns))


def mark_gaps(axes: Axes, absent: Sequence[str], empty: bool) -> None:
    """Note in grey which series a panel lacks, or that nothing was run for it."""
    if empty:
        axes.text(0.5, 0.5, "not run", ha="center", va="center", color=ABSENT, transform=axes.transAxes)
    elif absent:
        text = fill(f"not run: {', '.join(absent)}", 30)
        axes.text(0.98, 0.98, text, ha="right", va="top", color=ABSENT, fontsize=7, transform=axes.transAxes)


def make_room(figure: Figure, rows: int) -> None:
    """Increase the figure's height by the legend's rows, so that the panels keep their size."""
    figure.set_figheight(figure.get_figheight() + 0.18 * rows)


def places(axes: Axes, labels: Sequence[str]) -> range:
    """Set evenly spaced ticks on the x axis, one per label; returns their positions."""
    at = range(len(labels))
    axes.set_xticks(list(at), labels=list(labels))
    axes.set_xlim(-0.5, max(1, len(labels)) - 0.5)
    return at


def save_pdf(figure: Figure, path: Path) -> None:
    """Write a PDF without a date, so that equal numbers give equal bytes."""
    figure.savefig(path, format="pdf", metadata={"CreationDate": None})


def save_png(figure: Figure, path: Path) -> None:
    """Write a PNG for screens and reports, without the version of Matplotlib."""
    figure.savefig(path, format="png", metadata={"Software": None})
