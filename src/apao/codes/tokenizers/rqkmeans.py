"""Residual K-means (RQ-K-means): level l clusters the residuals of the levels before it.

Shapes: I items, T levels, D width, k_l clusters of level l.

All computation is in float64 and on one thread: with float32 rounding, or sums whose order depends on the number of
threads, an item could get different codes on different machines.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, PositiveInt
from threadpoolctl import threadpool_limits
from typing_extensions import override

from apao.codes.coding import Coding, FloatMatrix, Matrix, mean_square, nearest_codes
from apao.codes.collisions import CollisionPolicy
from apao.codes.tokenizers.base import TOKENIZERS, Inputs, Tokenizer
from apao.data.histories import IntArray
from apao.parameters import Seed
from apao.progress import progress

# A residual this small relative to the spread of the embeddings is rounding error. It is set to 0, so that levels do
# not cluster the rounding errors of items that have a cluster of their own.
NEGLIGIBLE = 1e-6


@TOKENIZERS.register
class ResidualKMeans(Tokenizer):
    """Residual K-means over the items' embeddings (RQ-K-means)."""

    method: Literal["rq-kmeans"]
    embedder: str
    """Name of an entry under ``embedders``."""
    levels: Annotated[int, Field(ge=1, le=25)] = 4
    """Number of levels: tokens per code."""
    clusters: Annotated[int, Field(ge=1, le=65536)] = 256
    """Codebook size of each level; smaller for a level with fewer distinct residuals."""
    collisions: CollisionPolicy = "keep"
    """Policy for items that share a code: ``keep`` the codes, add an ``extra`` level that numbers the items, or
    ``reassign`` them to the nearest free token of the last level."""
    restarts: PositiveInt = 1
    """K-means initialisations per level; the best is kept."""
    iterations: PositiveInt = 100
    """Maximum number of iterations per initialisation."""
    balanced: bool = False
    """Whether all clusters of a level get as many items as each other, or one more (OneRec's balanced K-means)."""
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
        return residual_kmeans(
            inputs.embeddings, self.levels, self.clusters, self.restarts, self.iterations, self.seed, self.balanced
        )

    @override
    def code_new(self, inputs: Inputs, codebooks: Sequence[FloatMatrix]) -> IntArray:
        return nearest_codes(inputs.embeddings, codebooks)


def residual_kmeans(
    embeddings: Matrix,
    levels: int,
    clusters: int,
    restarts: int = 1,
    iterations: int = 100,
    seed: int = 42,
    balanced: bool = False,
) -> Coding:
    """Quantise ``embeddings`` (I, D) by ``levels`` rounds of K-means (OneRec's RQ-K-means).

    A level has at most ``clusters`` clusters and at most one per distinct residual, so a single one if all residuals
    are 0. All tokens 0 .. k_l - 1 of a level occur. The result does not depend on the number of threads.

    Args:
        embeddings: (I, D) item embeddings.
        levels: number of levels T.
        clusters: maximum number of clusters per level.
        restarts: K-means initialisations per level; the best is kept.
        iterations: maximum number of iterations per initialisation.
        seed: seed of the initialisations.
        balanced: whether clusters get equal numbers of items; not where there are few distinct residuals.
    """
    residual = np.array(embeddings, dtype=np.float64)
    spread = np.sqrt(mean_square(residual - residual.mean(axis=0)))
    codes, codebooks = [], []
    with threadpool_limits(limits=1), progress("residual K-means levels", total=levels) as advance:
        for _ in range(levels):
            labels = clustered(residual, clusters, restarts, iterations, seed, balanced)
            codebook = centroids(residual, labels)
            residual -= codebook[labels]
            residual[np.linalg.norm(residual, axis=1) <= NEGLIGIBLE * spread] = 0.0
            codes.append(labels)
            codebooks.append(codebook)
            advance()
    return Coding(np.stack(codes, axis=1), codebooks, embeddings)


def clustered(
    rows: FloatMatrix, clusters: int, restarts: int, iterations: int, seed: int, balanced: bool = False
) -> IntArray:
    """K-means cluster of each row (I,), numbered from 0 without gaps; equal rows share one if few are distinct."""
    few = _numbered(rows, clusters)
    if few is not None:
        return few
    if balanced:
        return _balanced(rows, clusters, restarts, iterations, seed)
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    kmeans = KMeans(clusters, n_init=restarts, max_iter=iterations, random_state=seed)
    with warnings.catch_warnings():
        # Rows closer than the rounding of distances can share a cluster and leave another one empty; the numbers are
        # made contiguous below.
        warnings.simplefilter("ignore", ConvergenceWarning)
        labels = kmeans.fit(rows).labels_
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)


def _balanced(rows: FloatMatrix, clusters: int, restarts: int, iterations: int, seed: int) -> IntArray:
    """Cluster of each row by balanced K-means (Deng et al. 2025, OneRec, algorithm 1), the best of the restarts.

    In each iteration, one cluster after the other takes the nearest of the rows that are left.
    """
    from sklearn.cluster import kmeans_plusplus

    sizes = [len(part) for part in np.array_split(np.arange(len(rows)), clusters)]
    best, least = np.zeros(len(rows), dtype=np.int64), np.inf
    for restart in range(restarts):
        means, labels = kmeans_plusplus(rows, clusters, random_state=seed + restart)[0], None
        for _ in range(iterations):
            before, labels = labels, np.full(len(rows), -1, dtype=np.int64)
            distances = np.square(means).sum(axis=1) - 2 * (rows @ means.T)
            for cluster, size in enumerate(sizes):
                left = np.flatnonzero(labels < 0)
                labels[left[np.argsort(distances[left, cluster], kind="stable")[:size]]] = cluster
            means = centroids(rows, labels)
            if before is not None and np.array_equal(labels, before):
                break
        error = mean_square(rows - means[labels])
        if error < least:
            best, least = labels, error
    return best


def _numbered(rows: FloatMatrix, most: int) -> IntArray | None:
    """Index of each row among the distinct rows in order of appearance; None if there are more than ``most``."""
    seen: dict[bytes, int] = {}
    numbers = np.empty(len(rows), dtype=np.int64)
    for i, row in enumerate(rows + 0.0):  # 0.0 and -0.0 are equal but differ in their bytes
        numbers[i] = seen.setdefault(row.tobytes(), len(seen))
        if len(seen) > most:
            return None
    return numbers


def centroids(rows: FloatMatrix, labels: IntArray) -> FloatMatrix:
    """Mean of each cluster's rows; if they are equal, the row itself, since a mean could differ by rounding."""
    order = np.argsort(labels, kind="stable")
    groups = np.split(rows[order], np.flatnonzero(np.diff(labels[order])) + 1)
    return np.stack([group[0] if (group == group[0]).all() else group.mean(axis=0) for group in groups])
