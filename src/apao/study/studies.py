"""Studies of params.yaml: each is one table or figure, made from a list of runs.

A study has a name, which its files bear, and a kind, which says what is shown. A kind is one module of
``apao.report.kinds`` with a subclass of ``Study`` in it: what params.yaml says of such a study beside its
drawing. The rule of a study depends on the files of exactly the runs that it lists, and its drawing reads
no others.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, NamedTuple

from pydantic import Field
from typing_extensions import override

from apao.errors import UserError
from apao.parameters import Model, Registry, Seed
from apao.study.paths import FIGURES, OWN, TABLES, Collection
from apao.study.runs import Run

if TYPE_CHECKING:
    from apao.study.params import Params

Names = Annotated[tuple[str, ...], Field(min_length=1)]
Seeds = Annotated[tuple[Seed, ...], Field(min_length=1)]
MAX_RUNS = 10_000
"""Of one study."""
Output = Callable[[str], AbstractContextManager[Path]]
"""File name to the path where to write it; the file appears whole when the block ends."""


class Form(NamedTuple):
    """Where the files of tables or of figures lie, and their formats."""

    folder: Path
    suffixes: tuple[str, ...]


TABLE = Form(TABLES, ("csv", "md", "tex"))
"""In long form for machines, in wide form for readers and for LaTeX."""
FIGURE = Form(FIGURES, ("pdf", "png", "csv", "rst"))
"""The picture twice, the numbers in it, and the caption."""


class Study(Model, ABC):
    """One table or figure: which runs it is made from, which of their files it reads, and how it is drawn."""

    kind: str
    title: Annotated[str, Field(min_length=1)] | None = None
    """What the report calls it. null: ``Table 1`` for ``table1``, ``Figure 2`` for ``figure2``, else its name."""

    form: ClassVar[Form]
    files: ClassVar[tuple[str, ...]] = ("metrics.json",)
    """Files of each run that the study reads."""

    @abstractmethod
    def runs(self) -> list[Run]:
        """Every run the study needs, in the order of params.yaml, without repeats."""

    def dataset_names(self) -> tuple[str, ...]:
        """Datasets that are read without any run on them."""
        return ()

    def inputs(self) -> list[Path]:
        """Files that are read and belong to no run."""
        return []

    @abstractmethod
    def write(self, name: str, params: Params, output: Output, collection: Collection = OWN) -> None:
        """Draw the study called ``name`` from the runs of ``collection`` and write each of its ``outputs``."""

    def outputs(self, name: str, collection: Collection = OWN) -> list[Path]:
        """The files that the study called ``name`` consists of."""
        folder = collection.place(self.form.folder)
        return [folder / f"{name}.{suffix}" for suffix in self.form.suffixes]

    def titled(self, name: str) -> str:
        """The title of the study called ``name``."""
        numbered = re.fullmatch(r"(table|figure)(\d+)", name)
        return self.title or (f"{numbered[1].title()} {numbered[2]}" if numbered else name)


STUDIES: Registry[Study] = Registry("study kind", "apao.report.kinds", tag="kind")


class GridStudy(Study):
    """Every objective with every backbone on every dataset."""

    datasets: Names
    backbones: Names
    objectives: Names
    seeds: Seeds

    @override
    def runs(self) -> list[Run]:
        return grid(self.datasets, self.backbones, self.objectives, self.seeds)


def grid(
    datasets: Sequence[str], backbones: Sequence[str], objectives: Sequence[str], seeds: Sequence[int]
) -> list[Run]:
    """All combinations, without repeats.

    Raises:
        UserError: for more than ``MAX_RUNS``, or an objective that is none.
    """
    if len(datasets) * len(backbones) * len(objectives) * len(seeds) > MAX_RUNS:
        raise UserError(f"more than {MAX_RUNS} runs; list fewer datasets, backbones, objectives or seeds")
    runs = [
        Run.of(dataset, backbone, objective, seed)
        for dataset, backbone, objective, seed in product(datasets, backbones, objectives, seeds)
    ]
    return list(dict.fromkeys(runs))
