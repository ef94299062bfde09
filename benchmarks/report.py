"""From measured rows to something to read: a table, the paper's Table 4 beside ours, scaling curves."""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apao.report import style
from apao.report.paper import printed
from benchmarks.subject import OFFICE, Size, params

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = dict[str, Any]

SIZES = {
    "history": "Items in a history",
    "negatives": "Negatives an example",
    "micro_batch_tokens": "Tokens in a micro-batch",
    "threads": "Threads",
    "runs": "Trainings at once",
    "neighbours": "Busy processes beside it",
    "beam": "Beam size",
    "items": "Items in the catalogue",
    "users": "Users (Office, Yelp)",
}
"""What ends a name (``...@size=value``), and the axis of its scaling curve."""


COLUMNS = 4
"""Sizes side by side in the picture of the curves."""


def results_table(report: dict[str, Any]) -> str:
    """The results as Markdown, with the share of the machine's own rate that was reached."""
    facts = report["machine"]
    best = max(facts["fp32_gflop_per_s"], facts["bf16_gflop_per_s"])
    lines = [
        f"{facts['device']} ({facts['cpu']}), {facts['threads']} threads, torch {facts['torch']}; matrix products "
        f"{facts['matrix']}: {facts['fp32_gflop_per_s']} GFLOP/s in fp32, {facts['bf16_gflop_per_s']} in bf16.",
        "",
        "Rated: fp32 matrix products in GFLOP/s before and after the case, in its process. Beside: cores that other "
        "processes kept busy meanwhile; above 0.1 the machine was not idle. MFLOP of a comparison: a ratio, "
        "which is what both ways would differ by if they did as many a second.",
        "",
        "| case | median | low to high | unit | MFLOP per unit | GFLOP/s | of the matrix rate | rated | beside | MB |",
        "| --- | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in report["results"]:
        work = ("–", "–", "–")
        if row["times_fewer_operations"] is not None:
            work = (f"x {row['times_fewer_operations']}", "–", "–")
        elif row["gflop_per_s"] is not None:
            work = (row["mflop_per_unit"], row["gflop_per_s"], f"{100 * row['gflop_per_s'] / best:.0f} %")
        spread = f"{row['low']} to {row['high']}"
        rated = "–" if "rated" not in row else "{:.0f}, {:.0f}".format(*row["rated"])
        beside = row.get("others", "–")
        cells = (row["name"], row["value"], spread, row["unit"], *work, rated, beside, row["peak_memory_mb"])
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def table4(rows: list[Row]) -> str:
    """Seconds an epoch of Office: measured rate times examples, beside the paper's (one A100)."""
    examples = OFFICE.training_examples
    lines = [
        f"One epoch of Office ({examples:,} examples) at these rates, and the paper's Table 4 (an A100):",
        "",
        "| backbone | objective | seconds | paper |",
        "| --- | --- | ---: | ---: |",
    ]
    for row in rows:
        kind, _, rest = row["name"].partition("/")
        if kind != "train" or "@" in rest:
            continue
        backbone, _, objective = rest.partition("/")
        theirs = printed("table4", "seconds_per_epoch", objective=objective, dataset="office")
        # The paper's Table 4 has one backbone.
        shown = "" if backbone != "tiger" or math.isnan(theirs) else f"{theirs:.0f}"
        lines.append(f"| {backbone} | {objective} | {examples / row['value']:.1f} | {shown} |")
    return "\n".join(lines) + "\n"


def table1_cost(rows: list[Row]) -> str:
    """Hours of training that the paper's scale needs for Table 1 at these rates, per backbone.

    Every run takes the paper's epochs to converge on its dataset (Table 4: those of ``ce``, or of ``apao-pairwise`` for
    objectives that score negatives) and the patience, at the rate of its objective, or of one that costs as much.
    Validation and evaluation, a few seconds an epoch, are not counted.
    """
    patience = params().recipes["paper"].training.patience
    rates = {row["name"].removeprefix("train/"): row["value"] for row in rows if row["name"].startswith("train/")}
    hours: dict[tuple[str, str], float] = defaultdict(float)
    runs: dict[tuple[str, str], int] = defaultdict(int)
    for run in params().studies["paper"]["table1"].runs():
        contrasting = params().resolve(run).objective.needs().negatives > 0
        family = "apao-pairwise" if contrasting else "ce"
        rate = rates.get(f"{run.backbone}/{run.objective}", rates.get(f"{run.backbone}/{family}"))
        if rate is None:
            return ""
        size = Size(*(int(printed("table2", column, dataset=run.dataset)) for column in Size._fields))
        epochs = printed("table4", "epochs", objective=family, dataset=run.dataset) + patience
        key = run.backbone, "scores 100 negatives" if contrasting else "the target alone"
        hours[key] += epochs * size.training_examples / rate / 3600
        runs[key] += 1
    lines = [
        "Table 1 of the paper's scale (four datasets, five seeds) at these rates, one training after another, with the "
        f"paper's epochs to converge and {patience} of patience:",
        "",
        "| backbone | the objective | runs | hours |",
        "| --- | --- | ---: | ---: |",
    ]
    lines += [
        f"| {backbone} | {kind} | {runs[backbone, kind]} | {time:,.0f} |" for (backbone, kind), time in hours.items()
    ]
    return "\n".join(lines) + "\n"


def draw_curves(rows: list[Row], path: Path) -> None:
    """Rate above, peak memory below, against one size at a time; nothing where no size was varied."""
    curves: dict[str, dict[str, dict[float, Row]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        name, _, point = row["name"].partition("@")
        if point:
            size, _, value = point.partition("=")
            curves[size][name][float(value)] = row
    if not curves:
        return
    names = list(dict.fromkeys(name for series in curves.values() for name in series))
    bands = math.ceil(len(curves) / COLUMNS)
    with style.applied():
        figure = style.blank(2.2 * COLUMNS, 3.6 * bands)
        axes = figure.subplots(2 * bands, COLUMNS, squeeze=False)
        for i, (size, series) in enumerate(curves.items()):
            band, column = divmod(i, COLUMNS)
            _draw_size(axes[2 * band, column], axes[2 * band + 1, column], size, series, names)
            if column == 0:
                axes[2 * band, 0].set_ylabel("Examples or users a second")
                axes[2 * band + 1, 0].set_ylabel("Peak memory (GB)")
        for unused in axes.reshape(bands, 2, COLUMNS)[-1, :, (len(curves) - 1) % COLUMNS + 1 :].flat:
            unused.set_axis_off()
        style.make_room(figure, style.legend(figure, 2.2 * COLUMNS, names))
        style.save_png(figure, path)


def _draw_size(rate: Axes, memory: Axes, size: str, series: dict[str, dict[float, Row]], names: list[str]) -> None:
    from matplotlib.ticker import LogLocator

    values = sorted({value for points in series.values() for value in points})
    for axes in (rate, memory):
        style.places(axes, [f"{value:,.0f}" for value in values])
        axes.tick_params(axis="x", rotation=30 if values[-1] >= 1000 else 0)
    for name, points in series.items():
        at, measured = [values.index(value) for value in points], points.values()
        look = style.look(names.index(name))
        spread = [[row["value"] - row["low"] for row in measured], [row["high"] - row["value"] for row in measured]]
        rate.errorbar(at, [row["value"] for row in measured], yerr=spread, **look)
        memory.plot(at, [row["peak_memory_mb"] / 1024 for row in measured], **look)
    everything = [row for points in series.values() for row in points.values()]
    rates, peaks = [row["value"] for row in everything], [row["peak_memory_mb"] / 1024 for row in everything]
    if max(rates) > 10 * min(rates):
        rate.set_yscale("log")
        rate.minorticks_off()
        rate.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if max(rates) < 100 * min(rates) else (1,)))
        rate.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    else:
        rate.set_ylim(0, 1.1 * max(row["high"] for row in everything))
    memory.set_ylim(0, 1.1 * max(peaks))
    memory.set_xlabel(SIZES[size])
