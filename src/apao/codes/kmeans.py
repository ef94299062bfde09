"""K-means of vectors: exact, on mini-batches, or with clusters of equal sizes.

Shapes: N rows, D width, k clusters.
"""

from __future__ import annotations

import warnings

import numpy as np

from apao.codes.coding import FloatMatrix, Matrix, nearest, pieces, squared_lengths
from apao.data.histories import IntArray

MINI_BATCH = 4096
"""Items of a mini-batch, or three per cluster if that is more: the first one also gives the initial centroids."""


def clustered(
    rows: Matrix, clusters: int, restarts: int, iterations: int, seed: int, balanced: bool = False
) -> IntArray:
    """K-means cluster of each row (I,), numbered from 0 without gaps; equal rows share one if few are distinct."""
    few = _numbered(rows, clusters)
    if few is not None:
        return few
    if balanced:
        return _balanced_clusters(rows, clusters, restarts, iterations, seed)
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    kmeans = KMeans(clusters, n_init=restarts, max_iter=iterations, random_state=seed)
    with warnings.catch_warnings():
        # Rows closer than the rounding of distances can share a cluster and leave another one empty; the numbers are
        # made contiguous below.
        warnings.simplefilter("ignore", ConvergenceWarning)
        labels = kmeans.fit(rows).labels_
    return _without_gaps(labels)


def clustered_by_mini_batches(rows: Matrix, clusters: int, mini_batches: int, seed: int) -> IntArray:
    """As ``clustered``, by centroids that are fitted on mini-batches, each drawn without replacement from all rows."""
    few = _numbered(rows, clusters)
    if few is not None:
        return few
    from sklearn.cluster import MiniBatchKMeans

    size = mini_batch_items(len(rows), clusters)
    kmeans = MiniBatchKMeans(clusters, batch_size=size, compute_labels=False, random_state=seed)
    # partial_fit and not fit, which would need all residuals in float64.
    drawn = np.random.default_rng(seed)
    for _ in range(mini_batches):
        kmeans.partial_fit(rows[drawn.choice(len(rows), size, replace=False)].astype(np.float64))
    labels = np.empty(len(rows), dtype=np.int64)
    for part in pieces(len(rows)):
        labels[part] = nearest(rows[part].astype(np.float64), kmeans.cluster_centers_)
    return _without_gaps(labels)


def mini_batch_items(items: int, clusters: int) -> int:
    """Number of items of a mini-batch, of a catalogue of ``items``."""
    return min(items, max(MINI_BATCH, 3 * clusters))


def _without_gaps(labels: IntArray) -> IntArray:
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)


def _balanced_clusters(rows: Matrix, clusters: int, restarts: int, iterations: int, seed: int) -> IntArray:
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
