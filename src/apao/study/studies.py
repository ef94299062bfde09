"""Studies of params.yaml: each is one table or figure of a list of runs.

The name of a study is that of its files; its kind determines what is shown. A kind is one module of
``apao.report.kinds`` with a subclass of ``Study``: the model of such an entry in params.yaml, together with the
drawing. A study's rule depends on the files of exactly the runs that it lists, and its drawing reads no others.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple

from pydantic import AfterValidator, Field
from typing_extensions import override

from apao.errors import UserError
from apao.evaluation.metrics import MetricName
from apao.parameters import Model, Registry, Seed
from apao.study.paths import FIGURES, OWN, TABLES, Collection
from apao.study.runs import Run

if TYPE_CHECKING:
    from apao.study.params import Params


def distinct(given: tuple[Any, ...]) -> tuple[Any, ...]:
    """``given``, if nothing is in it twice: it would count twice in means and tests."""
    if repeated := [each for i, each in enumerate(given) if each in given[:i]]:
        raise ValueError(f"gives {repeated[0]} twice")
    return given


Names = Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(distinct)]
Seeds = Annotated[tuple[Seed, ...], Field(min_length=1), AfterValidator(distinct)]
Metrics = Annotated[tuple[MetricName, ...], Field(min_length=1), AfterValidator(distinct)]
MAX_RUNS = 10_000
"""Maximum number of runs per study."""
Output = Callable[[str], AbstractContextManager[Path]]
"""Context manager that takes a file name and yields the path to write to; the file appears when the block ends."""


class Form(NamedTuple):
    """Folder and file formats of tables or of figures."""

    folder: Path
    suffixes: tuple[str, ...]


TABLE = Form(TABLES, ("csv", "md", "html", "tex"))
"""Long form for programs (csv), wide form for readers (md, html) and LaTeX (tex)."""
FIGURE = Form(FIGURES, ("pdf", "png", "csv", "rst"))
"""The figure in two formats, its numbers (csv), and its caption (rst)."""


class Study(Model, ABC):
    """One table or figure: its runs, the files of them that it reads, and its drawing."""

    kind: str
    title: Annotated[str, Field(min_length=1)] | None = None
    """Title in the report. null: ``Table 1`` for ``table1``, ``Figure 2`` for ``figure2``, otherwise the name."""

    form: ClassVar[Form]
    files: ClassVar[tuple[str, ...]] = ("metrics.json",)
    """Files of each run that the study reads."""

    @abstractmethod
    def runs(self) -> list[Run]:
        """All runs of the study, in the order of params.yaml, without repeats."""

    def dataset_names(self) -> tuple[str, ...]:
        """Names of the datasets that the study reads directly, not through runs."""
        return ()

    def inputs(self) -> list[Path]:
        """Files that the study reads besides those of its runs."""
        return []

    @abstractmethod
    def write(self, name: str, params: Params, output: Output, collection: Collection = OWN) -> None:
        """Draw the study and write each of its ``outputs``.

        Args:
            name: name of the study.
            params: all of params.yaml.
            output: opens an output file by its name.
            collection: the runs to read.
        """

    def outputs(self, name: str, collection: Collection = OWN) -> list[Path]:
        """Files of the study ``name``."""
        folder = collection.place(self.form.folder)
        return [folder / f"{name}.{suffix}" for suffix in self.form.suffixes]

    def titled(self, name: str) -> str:
        """Title of the study ``name``."""
        numbered = re.fullmatch(r"(table|figure)(\d+)", name)
        return self.title or (f"{numbered[1].title()} {numbered[2]}" if numbered else name)


STUDIES: Registry[Study] = Registry("study kind", "apao.report.kinds", tag="kind")


class GridStudy(Study):
    """Every objective with every backbone on every dataset."""

    datasets: Names
    backbones: Names
    objectives: Names
    seeds: Seeds

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Every (dataset, backbone); each gets a panel of a figure, or rows of their own."""
        return list(product(self.datasets, self.backbones))

    @override
    def runs(self) -> list[Run]:
        return grid(self.datasets, self.backbones, self.objectives, self.seeds)


def grid(
    datasets: Sequence[str], backbones: Sequence[str], objectives: Sequence[str], seeds: Sequence[int]
) -> list[Run]:
    """All combinations, without repeats.

    Raises:
        UserError: for more than ``MAX_RUNS`` combinations, or a malformed objective.
    """
    if len(datasets) * len(backbones) * len(objectives) * len(seeds) > MAX_RUNS:
        raise UserError(f"more than {MAX_RUNS} runs; list fewer datasets, backbones, objectives or seeds")
    runs = [
        Run.of(dataset, backbone, objective, seed)
        for dataset, backbone, objective, seed in product(datasets, backbones, objectives, seeds)
    ]
    return list(dict.fromkeys(runs))
