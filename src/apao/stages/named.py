"""What is named on the command line, runs and users, and what an item is called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from apao.data.histories import IntArray
from apao.errors import UserError
from apao.files import read_table
from apao.study.paths import DatasetPaths
from apao.study.runs import RECORD_FILE, Run


def run_folder(run: str) -> Path:
    """The folder of a run that is given by its name or its folder, such as one of ``results/published``.

    Raises:
        UserError: when it is neither.
    """
    folder = Path(run)
    if (folder / RECORD_FILE).exists():
        return folder
    try:
        return Run.parse(run).folder
    except UserError as error:
        raise UserError(f"{run}: no folder of a run (it has no {RECORD_FILE}), and no name of one: {error}") from error


def project_folder_of(folder: Path) -> Path:
    """The project folder that a run's folder is in: above ``results``, else the working directory."""
    above = [path.parent for path in folder.resolve().parents if path.name == "results"]
    return above[0] if above else Path()


@dataclass(frozen=True)
class Users:
    """The users of a dataset: raw ids by number, and the file that has them."""

    raw_ids: pd.Index
    file: Path

    @classmethod
    def read(cls, paths: DatasetPaths) -> Users:
        """The users of a preprocessed dataset."""
        return cls(pd.Index(read_table(paths.users, ["raw_id"])["raw_id"]), paths.users)

    def numbers(self, wanted: Sequence[str]) -> IntArray:
        """Numbers of users given by their raw ids.

        Raises:
            UserError: for the first user that the dataset does not have.
        """
        numbers = self.raw_ids.get_indexer(pd.Index(wanted))
        if (numbers < 0).any():
            unknown = wanted[int(np.argmax(numbers < 0))]
            raise UserError(
                f"{self.file}: has no user {unknown!r}, only users that passed the filter of the dataset; its ids are "
                f"like {self.raw_ids[0]!r}"
            )
        return numbers


def titles(items: pd.DataFrame) -> NDArray[np.object_]:
    """One line per item of an item table: its title; the raw id where that is empty."""
    return items["title"].where(items["title"] != "", items["raw_id"]).to_numpy(dtype=object)
