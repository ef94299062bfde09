"""Reading the items' embeddings in later stages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from apao.errors import UserError
from apao.files import check_made_from, missing, read_table

Vectors = NDArray[np.float32]


def read_embeddings(path: Path, items_file: Path) -> Vectors:
    """Embeddings (I, D) from ``path``, one row per row of the item table ``items_file``.

    Raises:
        UserError: when the file is missing, damaged, or belongs to another catalogue.
    """
    try:
        embeddings: Vectors = load_file(path)["embeddings"]
    except FileNotFoundError as error:
        raise missing(path) from error
    except (SafetensorError, KeyError) as error:
        raise UserError(
            f"{path}: not a safetensors file with a tensor `embeddings` ({error}); delete it and run its stage again"
        ) from error
    check_made_from(path, items_file)
    items = len(read_table(items_file, ["item"]))
    is_matrix = embeddings.ndim == 2 and embeddings.size and np.issubdtype(embeddings.dtype, np.floating)
    if not is_matrix or len(embeddings) != items or not np.isfinite(embeddings).all():
        raise UserError(
            f"{path}: expected {items} rows of finite numbers, one for each item of {items_file}, "
            f"found {embeddings.dtype} of shape {embeddings.shape}; delete it and run its stage again"
        )
    return embeddings
