"""The result of a tokenizer: the items' codes, and the codebooks that they index.

Shapes: I items, T levels, D width, k_l codes of level l.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from apao.data.histories import IntArray

Matrix = NDArray[np.floating]
FloatMatrix = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Coding:
    """A code for every item, before or after the collision policy.

    Codebooks are additive: the sum of an item's rows, one per level, approximates its vector.

    Attributes:
        codes: (I, T) values from 0.
        codebooks: (k_l, D) per level, without the level that the policy ``extra`` adds; empty if the tokenizer has
            no codebooks.
        vectors: (I, D) vectors that the codebooks approximate: the embeddings, or an encoder's output for them.
            None without codebooks.
        facts: details of the fit, ready for JSON; added to ``code_quality.json``.
        notes: the same as lines for the terminal.
        encoder: tensors by name from which the tokenizer's ``encoded`` computes the vectors of new items, kept beside
            the codebooks; empty where the vectors are the embeddings.
    """

    codes: IntArray
    codebooks: Sequence[FloatMatrix] = ()
    vectors: Matrix | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    encoder: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)

    @cached_property
    def relative_errors(self) -> list[float] | None:
        """Relative reconstruction error after each level; None without codebooks."""
        return None if self.vectors is None else relative_errors(self.vectors, self.codes, self.codebooks)


def residuals(vectors: Matrix, codes: IntArray, codebooks: Sequence[FloatMatrix]) -> FloatMatrix:
    """Residuals (I, D) of ``vectors`` after the first levels, those that have ``codebooks``."""
    residual = np.array(vectors, dtype=np.float64)
    for level, codebook in enumerate(codebooks):
        residual -= codebook[codes[:, level]]
    return residual


def relative_errors(vectors: Matrix, codes: IntArray, codebooks: Sequence[FloatMatrix]) -> list[float]:
    """Mean squared residual after each level, relative to that of the centred vectors (0 to 1).

    The error is 0 if all vectors are equal.
    """
    spread = mean_square(vectors - vectors.mean(axis=0, dtype=np.float64))
    if spread == 0:
        return [0.0] * len(codebooks)
    depths = range(1, len(codebooks) + 1)
    return [mean_square(residuals(vectors, codes, codebooks[:depth])) / spread for depth in depths]


def nearest_codes(vectors: Matrix, codebooks: Sequence[FloatMatrix]) -> IntArray:
    """Codes (I, T) by the nearest row of each level's codebook to what the levels before it leave of ``vectors``."""
    left = np.array(vectors, dtype=np.float64)
    codes = []
    with threadpool_limits(limits=1):
        for codebook in codebooks:
            book = codebook.astype(np.float64)
            # Rows of zeros after the first are numbers that the collision policy gave out; they say nothing.
            rows = np.flatnonzero(book.any(axis=1) | (np.arange(len(book)) == 0))
            distances = np.square(book[rows]).sum(axis=1) - 2 * (left @ book[rows].T)
            codes.append(rows[distances.argmin(axis=1)])
            left -= book[codes[-1]]
    return np.stack(codes, axis=1)


def mean_square(rows: FloatMatrix) -> float:
    """Mean squared length of the rows."""
    return float(np.square(rows).sum(axis=1).mean())
