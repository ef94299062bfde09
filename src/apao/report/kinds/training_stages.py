"""A table of objectives trained in one stage against those that start from a trained model."""

from __future__ import annotations

from itertools import product
from typing import ClassVar, Literal

import pandas as pd
from pydantic import model_validator
from typing_extensions import override

from apao.evaluation.metrics import ITEM_LEVEL, MetricName, metric_title
from apao.report import comparisons
from apao.report.base import TableStudy
from apao.report.comparisons import INTERVALS, Experiment, Key, Pair, Verdict, best, corrected, judged
from apao.report.paper import coverage, printed
from apao.report.render import COMPARED, Cell, Grid, Table, bold_best, compared, spread
from apao.report.results import Results, seeds_of
from apao.study.runs import Run
from apao.study.studies import STUDIES, Names, Seeds, distinct, grid

COLUMNS = (
    *("stages", "objective", "dataset", "backbone", "metric", "value", "sd", "seeds", "paper", "difference"),
    *("best_one_stage", *comparisons.COLUMNS),
)
CELLS = (*COMPARED, "ours, item level")
Place = tuple[str, str]
"""Dataset and backbone."""


@STUDIES.register
class TrainingStages(TableStudy):
    """One metric of objectives trained in one stage and in two (the paper's Table 3)."""

    kind: Literal["training-stages"]
    datasets: Names
    backbones: Names
    one_stage: tuple[str, ...]
    two_stage: tuple[str, ...]
    metric: MetricName = "ndcg@10"
    seeds: Seeds

    files: ClassVar[tuple[str, ...]] = ("metrics.json", "ranks.parquet")

    @model_validator(mode="after")
    def _some_objective(self) -> TrainingStages:
        if not self.one_stage and not self.two_stage:
            raise ValueError("name an objective in one_stage or two_stage")
        distinct((*self.one_stage, *self.two_stage))
        return self

    @override
    def runs(self) -> list[Run]:
        return grid(self.datasets, self.backbones, (*self.one_stage, *self.two_stage), self.seeds)

    @override
    def build(self, results: Results) -> Table:
        places = list(product(self.datasets, self.backbones))
        trained = {
            place: [
                Experiment.read(results, *place, objective, self.seeds, self._metrics())
                for _, objective in self._objectives()
            ]
            for place in places
        }
        verdicts = {place: self._verdicts(experiments) for place, experiments in trained.items()}
        rows = [
            row
            for i, (stages, _) in enumerate(self._objectives())
            for place in places
            for row in self._long(place, stages, trained[place][i], verdicts[place])
        ]
        title = metric_title(self.metric)
        notes = [
            results.origin(self),
            f"{title} on the test items. Code level: a hit is the target's code, as in the paper. Item level, "
            "strict: the items of one code share its rank in expectation. Bold: the best of each column. "
            + results.seeds_sentence(self, self.seeds),
            _comparison_note(trained) if self.one_stage and len(self._objectives()) > 1 else "",
            "" if self.two_stage else "This study has no two-stage objective.",
            "" if self.one_stage else "This study has no one-stage objective.",
            coverage(self.datasets),
        ]
        return Table(
            f"One training stage against two ({title})",
            pd.DataFrame(rows, columns=list(COLUMNS)),
            [self._grid(dataset, trained) for dataset in self.datasets],
            notes,
        )

    def _metrics(self) -> tuple[str, str]:
        """The metric at code level and at item level."""
        return self.metric, f"{ITEM_LEVEL}{self.metric}"

    def _objectives(self) -> list[tuple[str, str]]:
        """Pairs of the number of stages (as in the paper's numbers) and the objective."""
        return [*(("1", name) for name in self.one_stage), *(("2", name) for name in self.two_stage)]

    def _verdicts(self, experiments: list[Experiment]) -> dict[Key, Verdict]:
        """The best one-stage objective against each other objective; the tests of one metric are a family."""

        def best_against(one: Experiment, metric: str) -> Pair | None:
            ours = best(experiments[: len(self.one_stage)], metric)
            return None if ours is None or ours.runs == one.runs else (ours, one)

        return corrected(judged(experiments, self._metrics(), best_against), family=lambda key: key[1])

    def _paper(self, metric: str, place: Place, stages: str, objective: str) -> float:
        dataset, backbone = place
        return printed("table3", metric, stages=stages, objective=objective, dataset=dataset, backbone=backbone)

    def _long(
        self, place: Place, stages: str, one: Experiment, verdicts: dict[Key, Verdict]
    ) -> list[tuple[object, ...]]:
        rows: list[tuple[object, ...]] = []
        for metric, score in one.scores.items():
            verdict, paper = verdicts[one.objective, metric], self._paper(metric, place, stages, one.in_paper)
            rows.append(
                (
                    *(
                        stages,
                        one.objective,
                        *place,
                        metric,
                        score.mean,
                        score.sd,
                        seeds_of(one.runs),
                    ),
                    *(paper, score.mean - paper, verdict.other, *verdict.numbers()),
                )
            )
        return rows

    def _grid(self, dataset: str, trained: dict[Place, list[Experiment]]) -> Grid:
        shown = Grid(dataset, 2, [("", "Stages"), ("", "Objective")])
        shown.header += [(backbone, name) for backbone in self.backbones for name in CELLS]
        cells: list[list[Cell]] = []
        means: list[list[float]] = []
        for i, (stages, objective) in enumerate(self._objectives()):
            first = i in (0, len(self.one_stage))
            cells.append([Cell({"1": "one", "2": "two"}[stages] if first else ""), Cell(objective)])
            means.append([])
            for backbone in self.backbones:
                place = (dataset, backbone)
                one = trained[place][i]
                code, item = one.scores.values()
                cells[-1] += compared(code.mean, code.sd, self._paper(self.metric, place, stages, one.in_paper))
                cells[-1].append(Cell(spread(item.mean, item.sd)))
                means[-1] += [code.mean, item.mean]
        width = len(CELLS)
        bold_best(cells, [2 + width * i + at for i in range(len(self.backbones)) for at in (0, width - 1)], means)
        parts = [cells[: len(self.one_stage)], cells[len(self.one_stage) :]]
        shown.parts = [part for part in parts if part]
        return shown


def _comparison_note(trained: dict[Place, list[Experiment]]) -> str:
    users: dict[str, int] = {}
    for (dataset, _), experiments in trained.items():
        users[dataset] = max(users.get(dataset, 0), *(len(one.users) for one in experiments))
    counted = ", ".join(f"{dataset} {count:,}" for dataset, count in users.items())
    return (
        "The CSV compares the best one-stage objective with every other one of its column: gain, two-sided paired "
        "t-test over users, plain and with Holm's correction for the comparisons of the column, one-sample t-test of "
        f"its seeds against the other's mean, and 95 % intervals. {INTERVALS} Test users: {counted}."
    )
