"""The numbers of the APAO paper (arXiv 2603.02730), for comparison with ours."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib.resources import as_file, files

import pandas as pd

NAN = float("nan")


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
        return NAN
    for key, value in keys.items():
        frame = frame[frame[key].astype(str) == value]
    assert len(frame) <= 1, f"{table}: {keys} name {len(frame)} rows"
    return float(frame[column].iloc[0]) if len(frame) else NAN


def coverage(datasets: Iterable[str]) -> str:
    """A sentence naming the datasets that the paper did not use; empty if it used all."""
    known = set(_table("table2")["dataset"])
    absent = [name for name in dict.fromkeys(datasets) if name not in known]
    if not absent:
        return ""
    return f"The paper does not use {' or '.join(absent)}, so there are no numbers of the paper to compare with."
