"""Figure 4: NDCG@5 and decoding time against the beam size."""

from __future__ import annotations

import math
from textwrap import fill

import pandas as pd

from apao.errors import UserError
from apao.report import style
from apao.report.figure1 import machine_name
from apao.report.results import Estimate, Results, entry, number, origin, seeds_sentence
from apao.study.runs import Run
from apao.study.studies import Figure4

QUANTITIES = {"ndcg@5": "NDCG@5", "seconds_per_1000_users": "Seconds per 1,000 users"}
COLUMNS = ["dataset", "backbone", "objective", "beam", "quantity", "value", "sd", "seeds"]


def build(study: Figure4, results: Results) -> style.Drawing:
    """The figure of a study."""
    width = max(4.5, 3.2 * len(study.datasets))
    figure = style.blank(width, 4.0)
    axes = figure.subplots(len(QUANTITIES), len(study.datasets), squeeze=False, sharex=True)
    beams = sorted(set(study.beams))
    rows = []
    machines: dict[str, None] = {}
    for j, dataset in enumerate(study.datasets):
        for b, backbone in enumerate(study.backbones):
            for s, objective in enumerate(study.objectives):
                runs = results.experiment(dataset, backbone, objective, study.seeds)
                machines |= dict.fromkeys(_machine(run, results) for run in runs)
                for i, quantity in enumerate(QUANTITIES):
                    of_runs = [_by_beam(run, results, quantity) for run in runs]
                    estimates = [
                        Estimate(tuple(_at(run, by, beam) for run, by in zip(runs, of_runs, strict=True)))
                        for beam in beams
                    ]
                    places = style.places(axes[i, j], [f"{beam:,}" for beam in beams])
                    measured = [k for k, one in enumerate(estimates) if not math.isnan(one.mean)]
                    style.draw_line(
                        axes[i, j],
                        [places[k] for k in measured],
                        [estimates[k] for k in measured],
                        s,
                        len(study.objectives),
                        b,
                    )
                    seeds = " ".join(map(str, study.seeds))
                    rows += [
                        (dataset, backbone, objective, beam, quantity, one.mean, one.sd, seeds)
                        for beam, one in zip(beams, estimates, strict=True)
                    ]
        axes[0, j].set_title(dataset)
        axes[-1, j].set_xlabel("Beam size")
        axes[-1, j].set_ylim(bottom=0)
    axes[0, 0].set_ylabel(QUANTITIES["ndcg@5"])
    measured_on = "\n" + fill(f"({next(iter(machines))})", 24) if len(machines) == 1 else ""
    axes[1, 0].set_ylabel(QUANTITIES["seconds_per_1000_users"] + measured_on)
    figure.align_ylabels()
    style.make_room(figure, style.legend(figure, width, study.objectives, study.backbones))
    caption = (
        "NDCG@5 on the test items (code level, above) and decoding time (below) against the number of beams; time "
        f"measured on {' and '.join(machines)}. The beam sizes are evenly spaced, not to scale"
        f"{'; fewer than 5 beams give no NDCG@5' if any(math.isnan(float(row[5])) for row in rows) else ''}. "
        f"{origin(results.scale, [results.normalised(run) for run in study.runs()])} "
        + seeds_sentence(study.seeds, "error bars are")
    )
    return style.Drawing(figure, pd.DataFrame(rows, columns=COLUMNS), caption)


def _machine(run: Run, results: Results) -> str:
    path = run.folder / "beams.json"
    data = results.json(path)
    return machine_name(entry(path, data, "device"), number(path, data, "threads"))


def _by_beam(run: Run, results: Results, quantity: str) -> dict[int, float]:
    """Beam size to quantity; NaN where the beam was too narrow for the metric."""
    path = run.folder / "beams.json"
    data = results.json(path)
    measured = entry(path, data, "beams")
    found = {}
    for i in range(len(measured)):
        beam = int(number(path, measured, i, "beam", within=("beams",)))
        if quantity in QUANTITIES and quantity != "ndcg@5":
            seconds = number(path, measured, i, "seconds", within=("beams",))
            found[beam] = 1000 * seconds / number(path, data, "users")
        else:
            value = entry(path, data, "beams", i, quantity)
            found[beam] = math.nan if value is None else number(path, measured, i, quantity, within=("beams",))
    return found


def _at(run: Run, by_beam: dict[int, float], beam: int) -> float:
    if beam not in by_beam:
        raise UserError(f"{run.folder / 'beams.json'}: has no beam size {beam}; delete the file and make it again")
    return by_beam[beam]
