"""Residual K-means (RQ-K-means): level l clusters the residuals of the levels before it.

Shapes: I items, T levels, D width, k_l clusters of level l.

All computation is in float64 and on one thread: with float32 rounding, or sums whose order depends on the number of
threads, an item could get different codes on different machines.

A level's centroids are fitted on all residuals (Lloyd's algorithm), or on mini-batches of them for catalogues of a
million items. The residuals are then kept in float32, half as large, and converted a piece at a time.
"""

from __future__ import annotations

import warnings
from typing import Literal, Self

import numpy as np
from pydantic import PositiveInt, model_validator
from threadpoolctl import threadpool_limits
from typing_extensions import override

from apao.codes.coding import Coding, FloatMatrix, Matrix, mean_spread, nearest, pieces, squared_lengths
from apao.codes.collisions import CollisionPolicy
from apao.codes.tokenizers.base import TOKENIZERS, Inputs, LevelledTokenizer
from apao.data.histories import IntArray
from apao.parameters import Seed
from apao.progress import progress

# A residual this small relative to the spread of the embeddings is rounding error. It is set to 0, so that levels do
# not cluster the rounding errors of items that have a cluster of their own.
NEGLIGIBLE = 1e-6
MINI_BATCH = 4096
"""Items of a mini-batch, or three per cluster if that is more: the first one also gives the initial centroids."""
RESTARTS, ITERATIONS = 1, 100


@TOKENIZERS.register
class ResidualKMeans(LevelledTokenizer):
    """Residual K-means over the items' embeddings (RQ-K-means)."""

    method: Literal["rq-kmeans"]
    embedder: str
    """Name of an entry under ``embedders``."""
    collisions: CollisionPolicy = "keep"
    """Policy for items that share a code: ``keep`` the codes, add an ``extra`` level that numbers the items, or
    ``reassign`` them to the nearest free token of the last level."""
    restarts: PositiveInt = RESTARTS
    """K-means initialisations per level; the best is kept."""
    iterations: PositiveInt = ITERATIONS
    """Maximum number of iterations per initialisation."""
    balanced: bool = False
    """Whether all clusters of a level get as many items as each other, or one more (OneRec's balanced K-means)."""
    mini_batches: PositiveInt | None = None
    """Number of mini-batches of 4,096 items on which a level's centroids are fitted, for large catalogues
    (scikit-learn's ``MiniBatchKMeans``); null: on all items in every iteration (``KMeans``)."""
    seed: Seed = 42
    """Seed of the initialisations."""

    reads_embeddings = True

    @model_validator(mode="after")
    def _one_way_to_fit(self) -> Self:
        if self.mini_batches is not None and (self.restarts, self.iterations) != (RESTARTS, ITERATIONS):
            raise ValueError("restarts and iterations have no effect with mini_batches; remove them, or mini_batches")
        if self.mini_batches is not None and self.balanced:
            raise ValueError("balanced clusters are not fitted on mini-batches; remove balanced, or mini_batches")
        return self

    @override
    def fit(self, inputs: Inputs) -> Coding:
        return residual_kmeans(
            inputs.embeddings,
            self.levels,
            self.clusters,
            restarts=self.restarts,
            iterations=self.iterations,
            seed=self.seed,
            mini_batches=self.mini_batches,
            balanced=self.balanced,
        )


def residual_kmeans(
    embeddings: Matrix,
    levels: int,
    clusters: int,
    restarts: int = RESTARTS,
    iterations: int = ITERATIONS,
    seed: int = 42,
    mini_batches: int | None = None,
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
        seed: seed of the initialisations and of the mini-batches.
        mini_batches: number of mini-batches on which a level is fitted, instead of ``iterations`` over all items
            (Sculley, Web-Scale K-Means Clustering, WWW 2010); each item then takes its nearest centroid, and the
            mean of its items replaces each centroid.
        balanced: whether clusters get equal numbers of items; not where there are few distinct residuals.
    """
    residual: Matrix = np.array(embeddings, dtype=np.float64 if mini_batches is None else np.float32)
    negligible = NEGLIGIBLE * np.sqrt(mean_spread(residual))
    codes, codebooks = [], []
    with threadpool_limits(limits=1), progress("residual K-means levels", total=levels) as advance:
        for _ in range(levels):
            if mini_batches is None:
                labels = clustered(residual, clusters, restarts, iterations, seed, balanced)
            else:
                labels = _clustered_by_mini_batches(residual, clusters, mini_batches, seed)
            codebook = centroids(residual, labels)
            for part in pieces(len(residual)):
                left = residual[part] - codebook[labels[part]]
                left[np.linalg.norm(left, axis=1) <= negligible] = 0.0
                residual[part] = left
            codes.append(labels)
            codebooks.append(codebook)
            advance()
    facts: dict[str, object] = {"kmeans": "balanced" if balanced else "exact"}
    notes: tuple[str, ...] = ()
    if mini_batches is not None:
        items = _mini_batch_items(len(residual), clusters)
        facts = {"kmeans": "mini-batch", "mini_batches": mini_batches, "mini_batch_items": items}
        notes = (f"centroids of each level fitted on {mini_batches:,} mini-batches of {items:,} items",)
    return Coding(np.stack(codes, axis=1), codebooks, embeddings, facts, notes)


def clustered(
    rows: Matrix, clusters: int, restarts: int, iterations: int, seed: int, balanced: bool = False
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
    return _without_gaps(labels)


def _clustered_by_mini_batches(rows: Matrix, clusters: int, mini_batches: int, seed: int) -> IntArray:
    """The same by centroids that are fitted on mini-batches, drawn without replacement from all rows."""
    few = _numbered(rows, clusters)
    if few is not None:
        return few
    from sklearn.cluster import MiniBatchKMeans

    size = _mini_batch_items(len(rows), clusters)
    kmeans = MiniBatchKMeans(clusters, batch_size=size, compute_labels=False, random_state=seed)
    # partial_fit and not fit, which would need all residuals in float64.
    drawn = np.random.default_rng(seed)
    for _ in range(mini_batches):
        kmeans.partial_fit(rows[drawn.choice(len(rows), size, replace=False)].astype(np.float64))
    labels = np.empty(len(rows), dtype=np.int64)
    for part in pieces(len(rows)):
        labels[part] = nearest(rows[part].astype(np.float64), kmeans.cluster_centers_)
    return _without_gaps(labels)


def _mini_batch_items(items: int, clusters: int) -> int:
    return min(items, max(MINI_BATCH, 3 * clusters))


def _without_gaps(labels: IntArray) -> IntArray:
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)


def _balanced(rows: Matrix, clusters: int, restarts: int, iterations: int, seed: int) -> IntArray:
    """Cluster of each row by balanced K-means (Deng et al. 2025, OneRec, algorithm 1), the best of the restarts.

    In each iteration, one cluster after the other takes the nearest of the rows that are left.
    """
    from sklearn.cluster import kmeans_plusplus

    sizes = [len(part) for part in np.array_split(np.arange(len(rows)), clusters)]
    best, least = np.zeros(len(rows), dtype=np.int64), np.inf
    for restart in range(restarts):
        means: FloatMatrix = kmeans_plusplus(rows, clusters, random_state=seed + restart)[0]
        labels = np.full(len(rows), -1, dtype=np.int64)
        for _ in range(iterations):
            before, labels = labels, np.full(len(rows), -1, dtype=np.int64)
            distances = np.square(means).sum(axis=1) - 2 * (rows @ means.T)
            for cluster, size in enumerate(sizes):
                left = np.flatnonzero(labels < 0)
                labels[left[np.argsort(distances[left, cluster], kind="stable")[:size]]] = cluster
            means = centroids(rows, labels)
            if np.array_equal(labels, before):
                break
        error = float(squared_lengths(rows - means[labels]).mean())
        if error < least:
            best, least = labels, error
    return best


def _numbered(rows: Matrix, most: int) -> IntArray | None:
    """Index of each row among the distinct rows in order of appearance; None if there are more than ``most``."""
    seen: dict[bytes, int] = {}
    numbers = np.empty(len(rows), dtype=np.int64)
    for i, row in enumerate(rows):
        # 0.0 and -0.0 are equal but differ in their bytes.
        numbers[i] = seen.setdefault((row + 0.0).tobytes(), len(seen))
        if len(seen) > most:
            return None
    return numbers


def centroids(rows: Matrix, labels: IntArray) -> FloatMatrix:
    """Mean of each cluster's rows; if they are equal, the row itself, since a mean could differ by rounding."""
    order = np.argsort(labels, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
    # Cluster by cluster: a sorted copy of all rows would be as large as they are.
    groups = (rows[chosen].astype(np.float64) for chosen in members)
    return np.stack([group[0] if (group == group[0]).all() else group.mean(axis=0) for group in groups])
