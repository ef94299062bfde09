"""Residual K-means (RQ-K-means): level l clusters what the levels before it left unexplained.

Shapes: I items, T levels, D width, k_l clusters of level l.

Everything is in float64 and on one thread: rounding of float32 distances, and sums whose order
depends on the number of threads, would make two machines give an item two codes.
"""

from __future__ import annotations

import warnings
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, PositiveInt
from threadpoolctl import threadpool_limits
from typing_extensions import override

from apao.codes.coding import Coding, FloatMatrix, Matrix, mean_square
from apao.codes.collisions import CollisionPolicy
from apao.codes.tokenizers.base import TOKENIZERS, Inputs, Tokenizer
from apao.data.histories import IntArray
from apao.parameters import Seed
from apao.progress import progress

# A residual this small beside the spread of the embeddings is rounding; without this, levels would
# cluster the rounding of items that have a cluster of their own.
NEGLIGIBLE = 1e-6


@TOKENIZERS.register
class ResidualKMeans(Tokenizer):
    """Residual K-means over the items' embeddings (RQ-K-means)."""

    method: Literal["rq-kmeans"]
    embedder: str
    """Name of an entry under ``embedders``."""
    levels: Annotated[int, Field(ge=1, le=25)] = 4
    """Codes of an item."""
    clusters: Annotated[int, Field(ge=1, le=65536)] = 256
    """Codebook size of each level; a level with fewer distinct residuals has as many clusters as those."""
    collisions: CollisionPolicy = "keep"
    """What happens to items that share a code: nothing, one more level that numbers them, or the nearest free code
    of the last level."""
    restarts: PositiveInt = 1
    """K-means initialisations a level, the best kept."""
    iterations: PositiveInt = 100
    """Most iterations of one initialisation."""
    seed: Seed = 42
    """Seed of the initialisations."""

    reads_embeddings = True
    enlarged_by = "clusters"

    @property
    @override
    def sizes(self) -> tuple[int, ...]:
        return (self.clusters,) * self.levels

    @override
    def fit(self, inputs: Inputs) -> Coding:
        return residual_kmeans(inputs.embeddings, self.levels, self.clusters, self.restarts, self.iterations, self.seed)


def residual_kmeans(
    embeddings: Matrix, levels: int, clusters: int, restarts: int = 1, iterations: int = 100, seed: int = 42
) -> Coding:
    """Quantise ``embeddings`` (I, D) by ``levels`` rounds of K-means (OneRec's RQ-K-means).

    A level has ``clusters`` clusters, or as many as it has distinct residuals where they are fewer;
    where nothing is left to explain it has one. The result does not depend on the number of threads.
    ``restarts`` initialisations of at most ``iterations`` iterations are made a level. All codes of a level,
    0 .. k_l - 1, occur.
    """
    residual = np.array(embeddings, dtype=np.float64)
    spread = np.sqrt(mean_square(residual - residual.mean(axis=0)))
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
    return Coding(np.stack(codes, axis=1), codebooks, embeddings)


def _clustered(rows: FloatMatrix, clusters: int, restarts: int, iterations: int, seed: int) -> IntArray:
    """Cluster of each row (I,), numbered from 0 without gaps."""
    few = _numbered(rows, clusters)
    if few is not None:
        return few
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

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
