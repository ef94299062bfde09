"""The numbers of the APAO paper (arXiv 2603.02730), for comparison with ours."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cache
from importlib.resources import as_file, files

import pandas as pd


@cache
def _table(name: str) -> pd.DataFrame:
    with as_file(files("apao.report").joinpath("paper", f"{name}.csv")) as path:
        return pd.read_csv(path)


def printed(table: str, column: str, **keys: str) -> float:
    """The paper's number in ``column`` of the row that ``keys`` select; NaN where the paper has none.

    ``table`` is a table of the paper (``table1`` .. ``table5``), not the name of a study.
    """
    frame = _table(table)
    if column not in frame:
        return math.nan
    for key, value in keys.items():
        frame = frame[frame[key].astype(str) == value]
    assert len(frame) <= 1, f"{table}: {keys} name {len(frame)} rows"
    return float(frame[column].iloc[0]) if len(frame) else math.nan


def table1(dataset: str, backbone: str, objective: str, metric: str) -> float:
    """The paper's number of its main table; NaN where it has none."""
    return printed("table1", "value", dataset=dataset, backbone=backbone, objective=objective, metric=metric)


def uses(dataset: str) -> bool:
    """Whether the paper uses the dataset."""
    return dataset in set(_table("table2")["dataset"])


def coverage(datasets: Iterable[str]) -> str:
    """A sentence naming the datasets that the paper did not use; empty if it used all."""
    absent = [name for name in dict.fromkeys(datasets) if not uses(name)]
    if not absent:
        return ""
    return f"The paper does not use {' or '.join(absent)}, so there are no numbers of the paper to compare with."
