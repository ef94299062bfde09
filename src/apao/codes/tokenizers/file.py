"""Precomputed codes from the user's file.

Shapes: R rows of the file, I items, T levels.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from string import ascii_lowercase
from typing import Literal

import numpy as np
import pyarrow as pa
from pydantic import field_validator
from typing_extensions import override

from apao.codes.coding import Coding, FloatMatrix
from apao.codes.given import checked_suffix, joined, read_own_json, read_own_parquet
from apao.codes.itemcodes import parsed_codes
from apao.codes.tokenizers.base import TOKENIZERS, Inputs, Tokenizer
from apao.codes.vocabulary import MAX_CODE
from apao.data.histories import IntArray
from apao.errors import UserError

CODE_FILES = (".parquet", ".json")
_NUMBERED = re.compile(r"(.*?)([0-9]{1,3})")


@TOKENIZERS.register
class FileCodes(Tokenizer):
    """Codes from the user's file, joined by the dataset's raw item ids."""

    method: Literal["file"]
    collisions: Literal["keep", "extra"] = "keep"
    """Policy for items that share a code: ``keep`` the codes, or add an ``extra`` level that numbers the items."""
    path: Path
    """``.json``: item id to token strings, the format of LC-Rec, LETTER and the authors' release
    (``{"7": ["<a_1>", "<b_2>"]}``); or ``.parquet`` with a column of item ids and one column per level."""
    item: str = "item"
    """Name of the column of item ids in a parquet file."""

    @field_validator("path")
    @classmethod
    def _readable(cls, path: Path) -> Path:
        return checked_suffix(path, CODE_FILES)

    @override
    def own_files(self) -> tuple[Path, ...]:
        return (self.path.expanduser(),)

    @override
    def fit(self, inputs: Inputs) -> Coding:
        return given_codes(self.path.expanduser(), inputs.raw_ids, inputs.items_file, self.item)

    @override
    def code_new(self, inputs: Inputs, codebooks: Sequence[FloatMatrix]) -> IntArray:
        return self.fit(inputs).codes


def given_codes(path: Path, raw_ids: Sequence[str], items_file: Path, item: str = "item") -> Coding:
    """Read the codes (I, T) of a file.

    Args:
        path: the file, ``.json`` or ``.parquet``.
        raw_ids: (I,) the items' ids; the result is in their order.
        items_file: the file of ``raw_ids``, for messages.
        item: name of the column of item ids in a parquet file.

    Raises:
        UserError: when an item has no code or a code is malformed; names the file and the item, row or column.
    """
    ids, codes = _of_json(path) if path.suffix == ".json" else _of_parquet(path, item)
    join = joined(ids, raw_ids, path, items_file)
    return Coding(codes[join.rows], facts={"file": join.report(path)}, notes=(join.summary(path),))


def _of_json(path: Path) -> tuple[list[str], IntArray]:
    """Read an ``index.json`` in the format of LC-Rec, LETTER and the authors' release: item id to token strings."""
    table = read_own_json(path)
    if not isinstance(table, dict):
        raise UserError(f"{path}: expected a JSON object of item ids and codes, found a {type(table).__name__}")
    return list(table), parsed_codes(table, str(path))


def _of_parquet(path: Path, item: str) -> tuple[list[str], IntArray]:
    """Read a table with a column of item ids and one column of whole numbers per level."""
    ids, table = read_own_parquet(path, item)
    columns = []
    for name in _levels(table.column_names, path):
        column = table.column(name)
        if not pa.types.is_integer(column.type) or column.null_count:
            raise UserError(
                f"{path}: the column {name!r} contains {column.type} with {column.null_count} empty values; expected "
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
        raise UserError(f"{path}: contains no codes")
    return ids, np.stack(columns, axis=1)


def _levels(names: Sequence[str], path: Path) -> list[str]:
    """Names of the level columns, ordered by the numbers at their ends."""
    matches = [_NUMBERED.fullmatch(name) for name in names]
    numbered = {int(match[2]): match[0] for match in matches if match is not None}
    one_name = len({match[1] for match in matches if match is not None}) == 1
    first = min(numbered, default=0)
    wanted = list(range(first, first + len(names)))
    if None in matches or not one_name or sorted(numbered) != wanted or not 1 <= len(names) <= len(ascii_lowercase):
        raise UserError(
            f"{path}: expected, besides the item ids, one column per level: level_1, level_2, ... (1 to "
            f"{len(ascii_lowercase)}); found {', '.join(names) or 'none'}"
        )
    return [numbered[number] for number in wanted]
