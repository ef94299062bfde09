"""A figure of a metric and the decoding time against the beam size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from textwrap import fill
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pandas as pd
from typing_extensions import override

from apao.errors import UserError
from apao.evaluation.metrics import MetricName, metric_title
from apao.evaluation.significance import FEWEST_SEEDS, UNKNOWN, Ends
from apao.report import style
from apao.report.base import FigureStudy
from apao.report.results import ESTIMATE, Estimate, Results, few, machine, seeds_of
from apao.report.values import entries, entry, number
from apao.study.runs import Run
from apao.study.studies import STUDIES, GridStudy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SECONDS = "seconds_per_1000_users"
COLUMNS = ["dataset", "backbone", "objective", "beam", "quantity", *ESTIMATE, "seeds"]


@STUDIES.register
class BeamSizes(GridStudy, FigureStudy):
    """A metric and the decoding time at each beam size that the recipe measures (the paper's Figure 4)."""

    kind: Literal["beam-sizes"]
    metric: MetricName = "ndcg@5"
    times: bool = True
    """Whether decoding times are drawn; those of runs measured beside other work say nothing."""

    files: ClassVar[tuple[str, ...]] = ("beams.json",)

    @override
    def build(self, results: Results) -> style.Drawing:
        width, title = max(4.5, 3.2 * len(self.datasets)), metric_title(self.metric)
        quantities = (self.metric, SECONDS) if self.times else (self.metric,)
        figure = style.blank(width, 4.0 if self.times else 2.4)
        axes = figure.subplots(len(quantities), len(self.datasets), squeeze=False, sharex="col")
        rows = []
        machines: dict[str, None] = {}
        nowhere, gaps = results.gaps(self.pairs, self.objectives, self.seeds)
        for j, dataset in enumerate(self.datasets):
            beams = self._beams(dataset, results)
            for (b, backbone), (s, objective) in product(enumerate(self.backbones), enumerate(self.objectives)):
                runs = results.experiment(dataset, backbone, objective, self.seeds)
                machines |= dict.fromkeys(_machine(run, results) for run in runs)
                for i, quantity in enumerate(quantities):
                    estimates = _estimates(runs, results, quantity, beams)
                    self._draw(axes[i, j], beams, estimates, s, b)
                    rows += [
                        (dataset, backbone, objective, beam, quantity, *one.numbers(), seeds_of(runs))
                        for beam, one in zip(beams, estimates, strict=True)
                        if runs
                    ]
            missing = [f"{name} ({backbone})" for backbone in self.backbones for name in gaps[dataset, backbone]]
            for panel in axes[:, j]:
                style.mark_gaps(panel, missing, empty=not beams)
            axes[0, j].set_title(dataset if len(self.backbones) > 1 else f"{dataset}, {self.backbones[0]}")
            axes[-1, j].set_xlabel("Beam size")
        axes[0, 0].set_ylabel(title)
        if self.times:
            measured_on = "\n" + fill(f"({next(iter(machines))})", 24) if len(machines) == 1 else ""
            axes[1, 0].set_ylabel("Seconds per 1,000 users" + measured_on)
            for panel in axes[1]:
                panel.set_ylim(bottom=0)
        figure.align_ylabels()
        style.make_room(figure, style.legend(figure, width, self.objectives, self.backbones, absent=nowhere))
        narrow = any(math.isnan(float(row[5])) for row in rows)
        cutoff = title.rpartition("@")[2]
        drawn = f"{title} on the test items (code level) against the number of beams"
        if self.times:
            drawn = (
                f"{title} on the test items (code level, above) and decoding time (below) against the number of beams; "
                f"time measured on {' and '.join(machines) or 'no machine yet'}"
            )
        caption = (
            f"{drawn}. The beam sizes are evenly spaced, not to "
            f"scale{f'; fewer than {cutoff} beams give no {title}' if narrow else ''}. "
            f"{results.origin(self)} {self._error_bars(rows, results)}"
        )
        return style.Drawing(figure, pd.DataFrame(rows, columns=COLUMNS), caption)

    def _error_bars(self, rows: Sequence[Sequence[Any]], results: Results) -> str:
        shown = [row for row in rows if row[4] == self.metric and not math.isnan(row[5])]
        said = results.error_bars(self, self.seeds)
        if few(self.seeds) and any(math.isnan(row[7]) for row in shown):
            named = "One seed" if len(self.seeds) == 1 else f"Means over {len(self.seeds)} seeds"
            return f"{named}; a line without error bars was measured before intervals over the test users were kept."
        if len(self.seeds) > 1:
            said = f"{said[:-1]}; one over the users of several seeds has the means of theirs as ends."
        if self.times and (few(self.seeds) or results.absent(self)):
            said += (
                f" A time has none for {'one seed' if len(self.seeds) == 1 else f'fewer than {FEWEST_SEEDS} seeds'}."
            )
        return said

    def _beams(self, dataset: str, results: Results) -> list[int]:
        """The beam sizes that were measured for any of the dataset's runs."""
        runs = (results.normalised(run) for run in self.runs() if run.dataset == dataset)
        return sorted({beam for run in runs if results.has(run) for beam in by_beam(run, results, SECONDS)})

    def _draw(self, axes: Axes, beams: list[int], estimates: list[Estimate], series: int, dashes: int) -> None:
        places = style.places(axes, [f"{beam:,}" for beam in beams])
        measured = [k for k, one in enumerate(estimates) if not math.isnan(one.mean)]
        at = [places[k] for k in measured]
        style.draw_line(axes, at, [estimates[k] for k in measured], series, len(self.objectives), dashes)


def _machine(run: Run, results: Results) -> str:
    path = results.file(run, "beams.json")
    return machine(path, results.json(path))


def _estimates(runs: list[Run], results: Results, quantity: str, beams: list[int]) -> list[Estimate]:
    """One estimate per beam size."""
    of_runs = [by_beam(run, results, quantity) for run in runs]
    values = [tuple(_at(run, results, by, beam) for run, by in zip(runs, of_runs, strict=True)) for beam in beams]
    ends = [user_intervals(run, results, quantity) for run in runs]
    return [
        Estimate(value, _mean_ends([one.get(beam) for one in ends])) for beam, value in zip(beams, values, strict=True)
    ]


def _mean_ends(of_runs: Sequence[Ends | None]) -> Ends:
    """Interval over the users of a mean over seeds, from those of the seeds alone; unknown if one of them is.

    The means of the ends, no narrower than that interval: the standard error of a mean is at most the mean of the
    standard errors.
    """
    known = [ends for ends in of_runs if ends is not None]
    if not known or len(known) < len(of_runs):
        return UNKNOWN
    low, high = np.mean(known, axis=0).tolist()
    return low, high


def user_intervals(run: Run, results: Results, quantity: str) -> dict[int, Ends]:
    """Beam size to the interval of a metric over the users, where the run's file has it."""
    path = results.file(run, "beams.json")
    data = results.json(path)
    found = {}
    for i in range(len(entries(path, data, "beams"))):
        where = ("beams", i, "intervals", quantity)
        if _has(data, where):
            low, high = (number(path, data, *where, end) for end in (0, 1))
            found[int(number(path, data, "beams", i, "beam"))] = low, high
    return found


def by_beam(run: Run, results: Results, quantity: str) -> dict[int, float]:
    """Beam size to quantity; NaN where the beam is smaller than the metric's cutoff."""
    path = results.file(run, "beams.json")
    data = results.json(path)
    found = {}
    for i in range(len(entries(path, data, "beams"))):
        beam = int(number(path, data, "beams", i, "beam"))
        if quantity == SECONDS:
            seconds = number(path, data, "beams", i, "seconds")
            found[beam] = 1000 * seconds / number(path, data, "users")
        else:
            value = entry(path, data, "beams", i, quantity)
            found[beam] = math.nan if value is None else number(path, data, "beams", i, quantity)
    return found


def _has(data: Any, keys: Sequence[str | int]) -> bool:
    """Whether there is an entry at ``keys`` that is not null; files of earlier revisions lack some."""
    try:
        for key in keys:
            data = data[key]
    except (LookupError, TypeError):
        return False
    return data is not None


def _at(run: Run, results: Results, measured: dict[int, float], beam: int) -> float:
    if beam not in measured:
        path = results.file(run, "beams.json")
        raise UserError(f"{path}: has no beam size {beam}; delete the file and rerun its stage")
    return measured[beam]
