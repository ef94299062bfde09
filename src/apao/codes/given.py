"""The user's own files with one row per item: reading their ids, and joining them with a dataset's items.

Rows are counted from 0, as in numpy and pandas; lines from 1.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from apao.data.histories import IntArray
from apao.errors import UserError, nearest


@dataclass(frozen=True)
class Join:
    """Result of joining the rows of a file with a dataset's items.

    Attributes:
        rows: (I,) row of each item.
        unused: ids of rows without an item.
    """

    rows: IntArray
    unused: tuple[str, ...]

    def report(self, file: Path) -> dict[str, Any]:
        """Row counts of the file, ready for JSON."""
        return {
            "file": str(file),
            "rows": len(self.rows) + len(self.unused),
            "rows_of_no_item": len(self.unused),
            "example_of_no_item": self.unused[0] if self.unused else None,
        }

    def summary(self, file: Path) -> str:
        """How rows and items match, as a sentence."""
        text = f"{file}: {len(self.rows) + len(self.unused):,} rows"
        if self.unused:
            return f"{text}, of which {len(self.unused):,} belong to no item (such as {self.unused[0]!r})"
        return f"{text}, one per item"


def joined(ids: Sequence[str], raw_ids: Sequence[str], file: Path, items_file: Path) -> Join:
    """Find the row of every item.

    Args:
        ids: ids of the file's rows.
        raw_ids: (I,) ids of the dataset's items.
        file: the file, for messages.
        items_file: the file of ``raw_ids``, for messages.

    Raises:
        UserError: when an id occurs twice or an item has no row.
    """
    row_of: dict[str, int] = {}
    for row, name in enumerate(ids):
        if name in row_of:
            raise UserError(f"{file}: rows {row_of[name]} and {row} both have the item id {name!r}; expected one row")
        row_of[name] = row
    absent = [item for item in raw_ids if item not in row_of]
    if absent:
        example = f"; ids in the file look like {ids[0]!r}" if ids else "; the file is empty"
        raise UserError(
            f"{file}: has no entry for {len(absent):,} of the {len(raw_ids):,} items, such as {absent[0]!r}{example}; "
            f"expected a row for every raw_id of {items_file}"
        )
    known = set(raw_ids)
    rows = np.array([row_of[item] for item in raw_ids], dtype=np.int64)
    return Join(rows, tuple(name for name in ids if name not in known))


def own_file(path: Path) -> Path:
    """Return ``path`` after checking that it is a file.

    Raises:
        UserError: when it is not.
    """
    if not path.is_file():
        raise UserError(f"{path}: not found; name an existing file in params.yaml")
    return path


def checked_suffix(path: Path, known: tuple[str, ...]) -> Path:
    """Return ``path`` after checking that its suffix is one of ``known``.

    Raises:
        ValueError: when it is not.
    """
    if path.suffix not in known:
        raise ValueError(f"expected a file that ends in {', '.join(known)}, found {str(path)!r}")
    return path


def read_ids(path: Path) -> list[str]:
    """Read the item ids for the rows of another file from a text file (one per line), a JSON list, or a 1-D .npy array.

    Raises:
        UserError: when an entry is not an id; names the file and the line or index.
    """
    if path.suffix == ".txt":
        return read_lines(path)
    if path.suffix == ".json":
        return ids_of_list(read_own_json(path), str(path))
    array = load_npy(path, "strings or whole numbers: np.save(path, np.array(ids, dtype=str))")
    if array.ndim != 1 or array.dtype.kind not in "Uiu":
        raise UserError(
            f"{path}: expected a 1-D array of strings or whole numbers, found {array.dtype} of shape {array.shape}"
        )
    if array.dtype.kind == "U":
        # numpy accepts numbers that are not valid characters as text, on which Python's own functions crash.
        points = np.frombuffer(array.tobytes(), dtype=np.dtype("u4").newbyteorder(array.dtype.byteorder))
        if points.max(initial=0) > sys.maxunicode:
            raise UserError(f"{path}: contains invalid characters; save the ids again")
    return ids_of_list(array.tolist(), str(path))


def read_lines(path: Path) -> list[str]:
    """Item ids, one per line of a text file.

    Raises:
        UserError: naming file and line, when it is not UTF-8 or a line is empty.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 ({error.reason}); save it as UTF-8") from error
    if not lines[-1]:
        lines.pop()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise UserError(f"{path}:{number}: the line is empty; expected one item id per line")
    return lines


def ids_of_list(values: object, where: str) -> list[str]:
    """Ids from a JSON list: strings unchanged, whole numbers as digits.

    Raises:
        UserError: when an entry is not an id; ``where`` names the list in the message.
    """
    if not isinstance(values, list):
        raise UserError(f"{where}: expected a list of item ids, found a {type(values).__name__}")
    for index, value in enumerate(values):
        if type(value) not in (str, int) or value == "":
            raise UserError(f"{where}: entry {index} is {value!r}; expected an item id: a string or a whole number")
    return [value if isinstance(value, str) else _digits(value, index, where) for index, value in enumerate(values)]


def _digits(value: int, index: int, where: str) -> str:
    if abs(value) >= 1 << 64:
        raise UserError(f"{where}: entry {index} is a number with too many digits; write the id as a string")
    return str(value)


def read_own_json(path: Path) -> Any:
    """Read a JSON file, refusing objects with a repeated key.

    Raises:
        UserError: when it is not valid JSON or a key occurs twice.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for index, name in enumerate(names) if name in names[:index])
            raise UserError(f"{path}: the key {twice!r} is given twice; expected it once")
        return values

    try:
        return json.loads(path.read_bytes(), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error})") from error


def load_npy(path: Path, wanted: str) -> np.ndarray[Any, Any]:
    """Memory-map the array of a .npy file without unpickling; ``wanted`` describes it in messages.

    Raises:
        UserError: when the file is damaged, needs unpickling, or is an archive of several arrays.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # a damaged header can raise almost any exception
        raise UserError(
            f"{path}: not a .npy array of {wanted}; Python objects and damaged files are not read"
        ) from error
    if not isinstance(array, np.ndarray):
        raise UserError(f"{path}: expected one .npy array of {wanted}, found an archive of several")
    return array


def read_own_parquet(path: Path, item: str) -> tuple[list[str], pa.Table]:
    """Item ids from the column ``item``, and the other columns.

    Raises:
        UserError: when the file is not a parquet file, or the column is missing or does not contain ids.
    """
    table = read_parquet(path)
    return ids_of_column(path, table, "item ids", item, "; name it in item"), table.drop_columns([item])


def read_parquet(path: Path) -> pa.Table:
    """A table of the user's.

    Raises:
        UserError: when the file is not a parquet file, or is damaged.
    """
    try:
        table = pq.read_table(path)
        table.validate(full=True)
    except Exception as error:  # a damaged file can raise almost any exception
        raise UserError(f"{path}: not a parquet table ({error})") from error
    return table


def ids_of_column(path: Path, table: pa.Table, what: str, name: str, remedy: str = "") -> list[str]:
    """The ids in the column ``name`` of the table in ``path``; ``what`` and ``remedy`` are for messages.

    Raises:
        UserError: when the column is missing or does not contain ids.
    """
    names = table.column_names
    if names.count(name) != 1:
        raise UserError(f"{path}: expected one column {name!r} of {what}{remedy}; {nearest(name, names)}")
    column = table.column(name)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if not (
        pa.types.is_integer(column.type) or pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    ):
        raise UserError(
            f"{path}: the column {name!r} contains {column.type}; expected {what} as strings or whole numbers, "
            "spelled as in the dataset"
        )
    values = column.to_pylist()
    for row, value in enumerate(values):
        if value is None or value == "":
            raise UserError(f"{path}: row {row} has nothing in the column {name!r}; expected {what}")
    return [str(value) for value in values]
