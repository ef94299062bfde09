"""Ready-made codes of the items: from the source (``published``) or from a file of the user (``file``).

Shapes: R rows of the file, I items, T levels.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from string import ascii_lowercase

import numpy as np
import pyarrow as pa

from apao.codes.given import Join, joined, read_own_json, read_own_parquet
from apao.codes.itemcodes import parsed_codes
from apao.codes.vocabulary import MAX_CODE
from apao.data.histories import IntArray
from apao.errors import UserError
from apao.files import read_table
from apao.study.paths import DatasetPaths

_NUMBERED = re.compile(r"(.*?)([0-9]{1,3})")


def given_codes(path: Path, item: str, paths: DatasetPaths) -> tuple[IntArray, Join]:
    """Codes (I, T) in the order of the item table, and what the file holds.

    Raises:
        UserError: naming file and item, row or column, when an item has no code or a code is malformed.
    """
    ids, codes = _of_json(path) if path.suffix == ".json" else _of_parquet(path, item)
    items = read_table(paths.items, ["raw_id"])["raw_id"].tolist()
    join = joined(ids, items, path, paths)
    return codes[join.rows], join


def _of_json(path: Path) -> tuple[list[str], IntArray]:
    """An ``index.json`` as LC-Rec, LETTER and the authors' release write it: item id to code strings."""
    table = read_own_json(path)
    if not isinstance(table, dict):
        raise UserError(f"{path}: expected a JSON object of item ids and codes, found a {type(table).__name__}")
    return list(table), parsed_codes(table, str(path))


def _of_parquet(path: Path, item: str) -> tuple[list[str], IntArray]:
    """A table with a column of item ids and one column of whole numbers per level."""
    ids, table = read_own_parquet(path, item)
    columns = []
    for name in _levels(table.column_names, path):
        column = table.column(name)
        if not pa.types.is_integer(column.type) or column.null_count:
            raise UserError(
                f"{path}: the column {name!r} holds {column.type} with {column.null_count} empty values; expected "
                "a whole number in every row"
            )
        values = column.to_numpy()
        bad = np.flatnonzero((values < 0) | (values > MAX_CODE))
        if len(bad):
            raise UserError(
                f"{path}: row {bad[0]} (item {ids[bad[0]]!r}) has {values[bad[0]]} in {name!r}; expected 0 to "
                f"{MAX_CODE}"
            )
        columns.append(values.astype(np.int64))
    if not ids:
        raise UserError(f"{path}: holds no codes")
    return ids, np.stack(columns, axis=1)


def _levels(names: Sequence[str], path: Path) -> list[str]:
    """The columns of levels in the order of the numbers that their names end with."""
    matches = [_NUMBERED.fullmatch(name) for name in names]
    numbered = {int(match[2]): match[0] for match in matches if match is not None}
    one_name = len({match[1] for match in matches if match is not None}) == 1
    first = min(numbered, default=0)
    wanted = list(range(first, first + len(names)))
    if None in matches or not one_name or sorted(numbered) != wanted or not 1 <= len(names) <= len(ascii_lowercase):
        raise UserError(
            f"{path}: expected, beside the item ids, one column per level: level_1, level_2, ... (1 to "
            f"{len(ascii_lowercase)}); found {', '.join(names) or 'none'}"
        )
    return [numbered[number] for number in wanted]
