"""Residual K-means (RQ-K-means): level l clusters what the levels before it left unexplained.

Shapes: I items, T levels, D width, k_l clusters of level l.

Everything is in float64 and on one thread: rounding of float32 distances, and sums whose order
depends on the number of threads, would make two machines give an item two codes.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from apao.data.histories import IntArray
from apao.progress import progress

Matrix = NDArray[np.floating]
FloatMatrix = NDArray[np.float64]

# A residual this small beside the spread of the embeddings is rounding; without this, levels would
# cluster the rounding of items that have a cluster of their own.
NEGLIGIBLE = 1e-6


class ResidualKMeans(NamedTuple):
    """Codes (I, T), codebooks (k_l, D) of each level, and each level's relative error.

    Codes of a level are 0 .. k_l - 1 and all occur. See ``relative_errors`` for the errors.
    """

    codes: IntArray
    codebooks: list[FloatMatrix]
    errors: list[float]


def residual_kmeans(
    embeddings: Matrix, levels: int, clusters: int, restarts: int = 1, iterations: int = 100, seed: int = 42
) -> ResidualKMeans:
    """Quantise ``embeddings`` (I, D) by ``levels`` rounds of K-means (OneRec's RQ-K-means).

    A level has ``clusters`` clusters, or as many as it has distinct residuals where they are fewer;
    where nothing is left to explain it has one. The result does not depend on the number of threads.
    ``restarts`` initialisations of at most ``iterations`` iterations are made a level.
    """
    residual = np.array(embeddings, dtype=np.float64)
    spread = np.sqrt(_mean_square(residual - residual.mean(axis=0)))
    codes, codebooks = [], []
    with threadpool_limits(limits=1), progress("residual K-means levels", total=levels) as advance:
        for _ in range(levels):
            labels = _clustered(residual, clusters, restarts, iterations, seed)
            centroids = _centroids(residual, labels)
            residual -= centroids[labels]
            residual[np.linalg.norm(residual, axis=1) <= NEGLIGIBLE * spread] = 0.0
            codes.append(labels)
            codebooks.append(centroids)
            advance()
    table = np.stack(codes, axis=1)
    return ResidualKMeans(table, codebooks, relative_errors(embeddings, table, codebooks))


def _clustered(rows: FloatMatrix, clusters: int, restarts: int, iterations: int, seed: int) -> IntArray:
    """Cluster of each row (I,), numbered from 0 without gaps."""
    few = _numbered(rows, clusters)
    if few is not None:
        return few
    kmeans = KMeans(clusters, n_init=restarts, max_iter=iterations, random_state=seed)
    with warnings.catch_warnings():
        # Rows closer than the distances' rounding can share a cluster; the gap that leaves is closed below.
        warnings.simplefilter("ignore", ConvergenceWarning)
        labels = kmeans.fit(rows).labels_
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)


def _numbered(rows: FloatMatrix, most: int) -> IntArray | None:
    """Number of each row, equal rows alike, in order of appearance; None for more than ``most``."""
    seen: dict[bytes, int] = {}
    numbers = np.empty(len(rows), dtype=np.int64)
    for i, row in enumerate(rows + 0.0):  # 0.0 and -0.0 are equal but differ in their bytes
        numbers[i] = seen.setdefault(row.tobytes(), len(seen))
        if len(seen) > most:
            return None
    return numbers


def _centroids(rows: FloatMatrix, labels: IntArray) -> FloatMatrix:
    """Mean of each cluster's rows; of equal rows that row itself, which rounding of a mean may miss."""
    order = np.argsort(labels, kind="stable")
    groups = np.split(rows[order], np.flatnonzero(np.diff(labels[order])) + 1)
    return np.stack([group[0] if (group == group[0]).all() else group.mean(axis=0) for group in groups])


def residuals(embeddings: Matrix, codes: IntArray, codebooks: Sequence[FloatMatrix]) -> FloatMatrix:
    """What the first levels, those of ``codebooks``, leave of ``embeddings``: (I, D)."""
    left = np.array(embeddings, dtype=np.float64)
    for level, codebook in enumerate(codebooks):
        left -= codebook[codes[:, level]]
    return left


def relative_errors(embeddings: Matrix, codes: IntArray, codebooks: Sequence[FloatMatrix]) -> list[float]:
    """Mean squared residual after each level, over the mean squared centred embedding (0 to 1).

    Embeddings that are all equal have no spread to explain; their error is 0.
    """
    spread = _mean_square(embeddings - embeddings.mean(axis=0, dtype=np.float64))
    if spread == 0:
        return [0.0] * len(codebooks)
    depths = range(1, len(codebooks) + 1)
    return [_mean_square(residuals(embeddings, codes, codebooks[:depth])) / spread for depth in depths]


def _mean_square(rows: FloatMatrix) -> float:
    return float(np.square(rows).sum(axis=1).mean())
