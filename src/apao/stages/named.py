"""What a user names on the command line, and what an item is called."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from apao.study.runs import Run


def run_folder(run: str) -> Path:
    """The folder of a run that is given by its name or its folder, such as one of ``results/published``.

    Raises:
        UserError: when it is neither.
    """
    folder = Path(run)
    return folder if (folder / "run.json").exists() else Run.parse(run).folder


def study_root(folder: Path) -> Path:
    """The folder of the study that a run's folder is in: above ``results``, else the working directory."""
    above = [path.parent for path in folder.resolve().parents if path.name == "results"]
    return above[0] if above else Path()


def titles(items: pd.DataFrame) -> NDArray[np.object_]:
    """One line per item of an item table: its title, or its text in tables without titles; the raw id where empty."""
    named = items["title" if "title" in items else "text"]
    return named.where(named != "", items["raw_id"]).to_numpy(dtype=object)
