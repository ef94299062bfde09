"""Precomputed item vectors from the user's file.

Shapes: R rows of the file, D width.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from apao.codes.embedders import VectorFile
from apao.codes.embeddings import Vectors
from apao.codes.given import ids_of_list, load_npy, read_ids, read_own_parquet
from apao.errors import UserError


def read_vectors(params: VectorFile) -> tuple[list[str], Vectors]:
    """Read the item ids of the rows and the vectors (R, D).

    Raises:
        UserError: when a value is not a finite number, or the number of ids differs from that of the rows; names
            the file and the row or column.
    """
    path = params.file.expanduser()
    if path.suffix == ".parquet":
        ids, table = read_own_parquet(path, params.item)
        found = _matrix_of(table, path)
    elif path.suffix == ".npy":
        found = load_npy(path, "numbers, of shape (items, width)")
        ids = []
    else:
        found, ids = _of_safetensors(path, params.ids is None)
    if params.ids is not None:
        ids = read_ids(params.ids.expanduser())
    if found.ndim != 2 or 0 in found.shape or not np.issubdtype(found.dtype, np.floating):
        raise UserError(
            f"{path}: expected floating-point numbers of shape (items, width), found {found.dtype} of shape "
            f"{found.shape}"
        )
    if len(ids) != len(found):
        raise UserError(f"{params.ids or path}: has {len(ids):,} item ids for the {len(found):,} rows of {path}")
    with np.errstate(over="ignore", invalid="ignore"):  # overflow gives infinity, which is refused below
        vectors = np.asarray(found, dtype=np.float32)
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise UserError(
            f"{path}: row {bad[0]} (item {ids[bad[0]]!r}) contains a number that is not finite, as do "
            f"{len(bad) - 1:,} other rows; expected finite float32 numbers"
        )
    return ids, vectors


def _matrix_of(table: pa.Table, path: Path) -> NDArray[Any]:
    """Matrix (R, D) from the columns of a parquet file without its ids: one column of lists, or D columns of floats."""
    lists = [name for name in table.column_names if _is_list(table.column(name).type)]
    if len(lists) == 1 == table.num_columns:
        return _matrix_of_lists(table.column(0), lists[0], path)
    for name in table.column_names:
        if not pa.types.is_floating(table.column(name).type):
            raise UserError(
                f"{path}: the column {name!r} contains {table.column(name).type}; expected, besides the item ids, one "
                "column of lists of numbers, or columns of floating-point numbers only"
            )
    if not table.num_columns:
        raise UserError(f"{path}: has no column of vectors besides the item ids")
    # Empty values become NaN, which the caller refuses.
    return np.stack([_floats(table.column(name)) for name in table.column_names], axis=1)


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _matrix_of_lists(column: pa.ChunkedArray, name: str, path: Path) -> NDArray[Any]:
    if not pa.types.is_floating(column.type.value_type):
        found = column.type.value_type
        raise UserError(f"{path}: the lists of {name!r} contain {found}; expected floating-point numbers")
    lengths = [0 if length is None else length for length in pc.list_value_length(column).to_pylist()]
    other = next((row for row, length in enumerate(lengths) if length != lengths[0]), None)
    if other is not None:
        raise UserError(f"{path}: row {other} has {lengths[other]} numbers in {name!r}, row 0 has {lengths[0]}")
    return _floats(pc.list_flatten(column)).reshape(len(lengths), -1 if sum(lengths) else 0)


def _floats(column: pa.ChunkedArray) -> NDArray[Any]:
    values: NDArray[Any] = column.to_numpy()
    return values


def _of_safetensors(path: Path, with_ids: bool) -> tuple[NDArray[Any], list[str]]:
    """Matrix of a file: its only tensor, or the one named ``embeddings``; and, if wanted, the ids in its metadata."""
    from safetensors import safe_open

    try:
        # numpy has no bfloat16, a common type of text encoders.
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            name = names[0] if len(names) == 1 else "embeddings"
            if name not in names:
                raise UserError(f"{path}: has the tensors {', '.join(names)}; expected one, or one named embeddings")
            tensor = file.get_tensor(name)
            listed = (file.metadata() or {}).get("ids")
    except UserError:
        raise
    except Exception as error:  # a damaged header can raise almost any exception
        raise UserError(f"{path}: not a safetensors file ({error})") from error
    found: NDArray[Any] = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    if not with_ids:
        return found, []
    if listed is None:
        raise UserError(
            f"{path}: has no `ids` (a JSON list) in its metadata; add it, or name a file of item ids in the key ids"
        )
    try:
        return found, ids_of_list(json.loads(listed), f"{path}: metadata `ids`")
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: `ids` in its metadata is not valid JSON ({error})") from error
