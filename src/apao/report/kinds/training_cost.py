"""A table of training cost: seconds per epoch and epochs to convergence."""

from __future__ import annotations

from typing import ClassVar, Literal

import pandas as pd
from typing_extensions import override

from apao.report.base import TableStudy
from apao.report.paper import coverage, printed
from apao.report.render import COMPARED, Cell, Grid, Table, compared
from apao.report.results import Estimate, Results, seeds_of
from apao.study.runs import Run
from apao.study.studies import STUDIES, GridStudy

DIGITS = {"seconds_per_epoch": 1, "epochs": 0}
COLUMNS = ["dataset", "backbone", "objective", "quantity", "value", "sd", "seeds", "paper", "difference"]


@STUDIES.register
class TrainingCost(GridStudy, TableStudy):
    """Seconds per epoch and epochs to convergence (the paper's Table 4)."""

    kind: Literal["training-cost"]

    files: ClassVar[tuple[str, ...]] = ("history.csv",)

    @override
    def build(self, results: Results) -> Table:
        names = [(title, name) for title in ("Seconds per epoch", "Epochs to converge") for name in COMPARED]
        grid = Grid("", 3, [("", "Dataset"), ("", "Backbone"), ("", "Objective"), *names])
        digits = DIGITS if len(self.seeds) == 1 else DIGITS | {"epochs": 1}
        rows = []
        for dataset in self.datasets:
            part: list[list[Cell]] = []
            for backbone in self.backbones:
                for i, objective in enumerate(self.objectives):
                    runs = results.experiment(dataset, backbone, objective, self.seeds)
                    costs, name = _costs(runs, results), results.name_in_paper(dataset, backbone, objective)
                    part.append([Cell("" if part else dataset), Cell("" if i else backbone), Cell(objective)])
                    for quantity, cost in costs.items():
                        paper = printed("table4", quantity, dataset=dataset, backbone=backbone, objective=name)
                        where = (dataset, backbone, objective, quantity)
                        rows.append((*where, cost.mean, cost.sd, seeds_of(runs), paper, cost.mean - paper))
                        part[-1] += compared(cost.mean, cost.sd, paper, digits[quantity])
            grid.parts.append(part)
        machines = results.machines(run for run in map(results.normalised, self.runs()) if results.has(run))
        on = f"on {' and '.join(machines)}" if machines else "on the machine named in the run's provenance file"
        notes = [
            results.origin(self),
            f"Seconds: mean wall time of training per epoch {on}; the "
            "paper's are from another machine. Epochs: number of the epoch with the best validation loss, without the "
            "epochs of patience after it; the paper does not state what it counts. "
            + results.seeds_sentence(self, self.seeds),
            coverage(self.datasets),
        ]
        return Table("Training cost", pd.DataFrame(rows, columns=COLUMNS), [grid], notes)


def _costs(runs: list[Run], results: Results) -> dict[str, Estimate]:
    histories = [results.history(run) for run in runs]
    return {
        "seconds_per_epoch": Estimate(tuple(float(history["seconds"].mean()) for history in histories)),
        # Every epoch that was the best so far is marked; the last of them is the best one.
        "epochs": Estimate(tuple(float(history.loc[history["best"], "epoch"].iloc[-1]) for history in histories)),
    }
