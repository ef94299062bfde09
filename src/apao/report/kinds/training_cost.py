"""Table 4: what training costs, in seconds an epoch and in epochs to convergence."""

from __future__ import annotations

import pandas as pd

from apao.report.paper import NAN, coverage, printed
from apao.report.render import Cell, Grid, Table, compared
from apao.report.results import Estimate, Results, origin, seeds_sentence
from apao.study.runs import Run
from apao.study.studies import Table4

PAPER_BACKBONE = "tiger"
"""The paper's Table 4 has one backbone."""
DIGITS = {"seconds_per_epoch": 1, "epochs": 0}
COLUMNS = ["dataset", "backbone", "objective", "quantity", "value", "sd", "seeds", "paper", "difference"]


def build(study: Table4, results: Results) -> Table:
    """The table of a study."""
    names = [(title, name) for title in ("Seconds an epoch", "Epochs to converge") for name in _COMPARED]
    grid = Grid("", 3, [("", "Dataset"), ("", "Backbone"), ("", "Objective"), *names])
    digits = DIGITS if len(study.seeds) == 1 else DIGITS | {"epochs": 1}
    rows = []
    for dataset in study.datasets:
        part: list[list[Cell]] = []
        for backbone in study.backbones:
            for i, objective in enumerate(study.objectives):
                costs = _costs(results.experiment(dataset, backbone, objective, study.seeds), results)
                part.append([Cell("" if part else dataset), Cell("" if i else backbone), Cell(objective)])
                for quantity, cost in costs.items():
                    paper = NAN
                    if backbone == PAPER_BACKBONE:
                        paper = printed("table4", quantity, objective=objective, dataset=dataset)
                    seeds = " ".join(map(str, study.seeds))
                    where = (dataset, backbone, objective, quantity)
                    rows.append((*where, cost.mean, cost.sd, seeds, paper, cost.mean - paper))
                    part[-1] += compared(cost.mean, cost.sd, paper, digits[quantity])
        grid.parts.append(part)
    notes = [
        origin(results.scale, [results.normalised(run) for run in study.runs()]),
        "Seconds: mean wall time of an epoch's training on the machine that trained the run, which its provenance "
        "file names; the paper's are of another machine. Epochs: number of the epoch with the best validation loss, "
        "without those of patience that follow it; what the paper counts is not stated. "
        + seeds_sentence(study.seeds, "± is"),
        coverage(study.datasets),
    ]
    return Table("Training cost", pd.DataFrame(rows, columns=COLUMNS), [grid], [note for note in notes if note])


def _costs(runs: list[Run], results: Results) -> dict[str, Estimate]:
    histories = [results.history(run) for run in runs]
    return {
        "seconds_per_epoch": Estimate(tuple(float(history["seconds"].mean()) for history in histories)),
        # Every epoch that was the best so far is marked; the last of them stayed it.
        "epochs": Estimate(tuple(float(history.loc[history["best"], "epoch"].iloc[-1]) for history in histories)),
    }


_COMPARED = ("ours", "paper", "difference")
