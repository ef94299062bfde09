"""From measured rows to something to read: a table, the paper's Table 4 beside ours, scaling curves."""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path
from typing import Any

from apao.report import style
from apao.report.paper import printed
from benchmarks.subject import OFFICE

Row = dict[str, Any]

SIZES = {
    "history": "Items in a history",
    "negatives": "Negatives an example",
    "micro_batch_tokens": "Tokens in a micro-batch",
    "threads": "Threads",
    "runs": "Trainings at once",
    "beam": "Beam size",
    "items": "Items in the catalogue",
    "users": "Users (Office, Yelp)",
}
"""What ends a name (``...@size=value``), and the axis of its scaling curve."""


def results_table(report: dict[str, Any]) -> str:
    """The results as Markdown, with the share of the machine's own rate that was reached."""
    facts = report["machine"]
    best = max(facts["fp32_gflop_per_s"], facts["bf16_gflop_per_s"])
    lines = [
        f"{facts['device']} ({facts['cpu']}), {facts['threads']} threads, torch {facts['torch']}; matrix products "
        f"{facts['matrix']}: {facts['fp32_gflop_per_s']} GFLOP/s in fp32, {facts['bf16_gflop_per_s']} in bf16.",
        "",
        "| case | median | low to high | unit | MFLOP a unit | GFLOP/s | share of the matrix rate | peak MB |",
        "| --- | ---: | ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    for row in report["results"]:
        reached = "–" if row["gflop_per_s"] is None else f"{100 * row['gflop_per_s'] / best:.0f} %"
        cells = (
            *(row["name"], row["value"], f"{row['low']} to {row['high']}", row["unit"]),
            *(row["mflop_per_unit"], row["gflop_per_s"], reached, row["peak_memory_mb"]),
        )
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
        kind, backbone, objective = row["name"].split("/")
        if kind != "train" or "@" in objective:
            continue
        theirs = printed("table4", "seconds_per_epoch", objective=objective, dataset="office")
        # The paper's Table 4 has one backbone.
        shown = "" if backbone != "tiger" or math.isnan(theirs) else f"{theirs:.0f}"
        lines.append(f"| {backbone} | {objective} | {examples / row['value']:.1f} | {shown} |")
    return "\n".join(lines) + "\n"


def draw_curves(rows: list[Row], path: Path) -> None:
    """Rate above, peak memory below, against one size at a time; nothing where no size was varied."""
    curves: dict[str, dict[str, list[tuple[float, Row]]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        name, _, point = row["name"].partition("@")
        if point:
            size, _, value = point.partition("=")
            curves[size][name].append((float(value), row))
    if not curves:
        return
    with style.applied():
        figure = style.blank(2.6 * len(curves), 4.4)
        axes = figure.subplots(2, len(curves), squeeze=False, sharex="col")
        names = list(dict.fromkeys(name for series in curves.values() for name in series))
        for j, (size, series) in enumerate(curves.items()):
            for name, points in series.items():
                at, measured = zip(*sorted(points, key=lambda point: point[0]), strict=True)
                drawn = style.look(names.index(name))
                spread = [[r["value"] - r["low"] for r in measured], [r["high"] - r["value"] for r in measured]]
                axes[0, j].errorbar(at, [row["value"] for row in measured], yerr=spread, **drawn)
                axes[1, j].plot(at, [row["peak_memory_mb"] for row in measured], **drawn)
            axes[0, j].set_yscale("log")
            axes[1, j].set_xscale("log", base=10 if size == "items" else 2)
            axes[1, j].set_ylim(bottom=0)
            if size != "items":
                ticks = sorted({value for points in series.values() for value, _ in points})
                axes[1, j].set_xticks(ticks, labels=[f"{tick:,.0f}" for tick in ticks], rotation=45)
                axes[1, j].minorticks_off()
            axes[1, j].set_xlabel(SIZES[size])
        axes[0, 0].set_ylabel("Examples or users a second")
        axes[1, 0].set_ylabel("Peak memory (MB)")
        style.make_room(figure, style.legend(figure, 2.6 * len(curves), names))
        style.save_png(figure, path)
