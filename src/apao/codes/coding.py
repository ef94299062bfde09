"""The result of a tokenizer: the items' codes, and the codebooks that they index.

Shapes: I items, T levels, D width, k_l codes of level l.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from apao.data.histories import IntArray

Matrix = NDArray[np.floating]
FloatMatrix = NDArray[np.float64]

ROWS_AT_ONCE = 16_384
"""Rows that are converted to float64 at once: the vectors of a million items are never held in float64."""


@dataclass(frozen=True, eq=False)
class Coding:
    """A code for every item, before or after the collision policy.

    Codebooks are additive: the sum of an item's rows, one per level, approximates its vector.

    Attributes:
        codes: (I, T) values from 0.
        codebooks: (k_l, D) per level as the tokenizer fitted them: without the level that the policy ``extra`` adds,
            and without rows for the tokens that ``reassign`` adds to the last level, which stand for no vector.
            Empty if the tokenizer has no codebooks.
        vectors: (I, D) vectors that the codebooks approximate: the embeddings, or an encoder's output for them.
            None without codebooks.
        facts: details of the fit, ready for JSON; added to ``code_quality.json``.
        notes: details of the fit as lines for the terminal.
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


def pieces(rows: int) -> Iterator[slice]:
    """Slices of at most ``ROWS_AT_ONCE`` that cover ``rows`` rows."""
    return (slice(first, first + ROWS_AT_ONCE) for first in range(0, rows, ROWS_AT_ONCE))


def rows_of(codebook: FloatMatrix, tokens: IntArray) -> FloatMatrix:
    """Rows (N, D) of ``tokens`` (N,); zero for those beyond the codebook, which the policy ``reassign`` gave out."""
    rows = codebook[np.minimum(tokens, len(codebook) - 1)]
    rows[tokens >= len(codebook)] = 0
    return rows


def residuals(vectors: Matrix, codes: IntArray, codebooks: Sequence[FloatMatrix]) -> FloatMatrix:
    """Residuals (I, D) of ``vectors`` after the first levels, those that have ``codebooks``."""
    residual = np.array(vectors, dtype=np.float64)
    for level, codebook in enumerate(codebooks):
        residual -= rows_of(codebook, codes[:, level])
    return residual


def relative_errors(vectors: Matrix, codes: IntArray, codebooks: Sequence[FloatMatrix]) -> list[float]:
    """Mean squared residual after each level, relative to that of the centred vectors (0 to 1).

    The error is 0 if all vectors are equal.
    """
    spread = mean_spread(vectors)
    if spread == 0:
        return [0.0] * len(codebooks)
    return [error / spread for error in squared_errors(vectors, codes, codebooks)]


def squared_errors(vectors: Matrix, codes: IntArray, codebooks: Sequence[FloatMatrix]) -> list[float]:
    """Mean squared length of the residuals after each level."""
    lengths = np.empty((len(codebooks), len(vectors)))
    for part in pieces(len(vectors)):
        residual = np.array(vectors[part], dtype=np.float64)
        for level, codebook in enumerate(codebooks):
            residual -= rows_of(codebook, codes[part, level])
            lengths[level, part] = squared_lengths(residual)
    return [float(level.mean()) for level in lengths]


def mean_spread(vectors: Matrix) -> float:
    """Mean squared distance of ``vectors`` (I, D) to their mean."""
    mean, lengths = vectors.mean(axis=0, dtype=np.float64), np.empty(len(vectors))
    for part in pieces(len(vectors)):
        lengths[part] = squared_lengths(vectors[part] - mean)
    return float(lengths.mean())


def nearest_codes(vectors: Matrix, codebooks: Sequence[FloatMatrix]) -> IntArray:
    """Codes (I, T) by the nearest row of each level's codebook to what the levels before it leave of ``vectors``."""
    codes = np.empty((len(vectors), len(codebooks)), dtype=np.int64)
    books = [np.asarray(book, dtype=np.float64) for book in codebooks]
    with threadpool_limits(limits=1):
        for part in pieces(len(vectors)):
            left = np.array(vectors[part], dtype=np.float64)
            for level, book in enumerate(books):
                codes[part, level] = nearest(left, book)
                left -= book[codes[part, level]]
    return codes


def nearest(rows: FloatMatrix, centroids: FloatMatrix) -> IntArray:
    """Index (I,) of the centroid (k, D) nearest to each of ``rows`` (I, D); of equally near ones the first."""
    return (np.square(centroids).sum(axis=1) - 2 * (rows @ centroids.T)).argmin(axis=1)


def squared_lengths(rows: FloatMatrix) -> NDArray[np.float64]:
    """Squared length (I,) of each row."""
    lengths: NDArray[np.float64] = np.square(rows).sum(axis=1)
    return lengths
