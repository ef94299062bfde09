"""Product quantisation (Jegou et al. 2011): level l clusters the l-th part of the vectors' dimensions.

Shapes: I items, T levels (parts), D width.

The codebooks have the whole width, so that they are additive like those of residual methods. They hold, in their part,
the differences of the centroids from the mean vector, and zeros elsewhere; the first level's also hold that mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt
from threadpoolctl import threadpool_limits
from typing_extensions import override

from apao.codes.coding import Coding, FloatMatrix, Matrix
from apao.codes.collisions import CollisionPolicy
from apao.codes.kmeans import centroids, clustered
from apao.codes.tokenizers.base import TOKENIZERS, Inputs, LevelledTokenizer
from apao.errors import UserError
from apao.parameters import Seed
from apao.progress import progress

RotationKind = Literal["none", "random", "pca"]


@TOKENIZERS.register
class ProductQuantisation(LevelledTokenizer):
    """K-means in parts of the items' embeddings (PQ), or of rotated ones (OPQ)."""

    method: Literal["pq"]
    embedder: str
    """Name of an entry under ``embedders``."""
    collisions: CollisionPolicy = "keep"
    """Policy for items that share a code: ``keep`` the codes, add an ``extra`` level that numbers the items, or
    ``reassign`` them to the nearest free token of the last level."""
    rotation: RotationKind = "none"
    """Rotation before the parts are cut: ``none``; ``random``; or ``pca``, the principal axes, dealt to the parts so
    that the products of their variances are balanced (the parametric form of OPQ, Ge et al. 2013)."""
    restarts: PositiveInt = 1
    """K-means initialisations per part; the best is kept."""
    iterations: PositiveInt = 100
    """Maximum number of iterations per initialisation."""
    seed: Seed = 42
    """Seed of the initialisations and of a random rotation."""

    reads_embeddings = True

    @override
    def fit(self, inputs: Inputs) -> Coding:
        vectors = inputs.embeddings.astype(np.float64)
        mean = vectors.mean(axis=0)
        if vectors.shape[1] < self.levels:
            raise UserError(
                f"pq: {self.levels} levels need embeddings of at least as many dimensions, these have "
                f"{vectors.shape[1]}; lower levels"
            )
        # A matrix product may round equal rows differently, which would give equal items different codes.
        distinct, row = np.unique(vectors, axis=0, return_inverse=True)
        codes, codebooks = [], []
        with threadpool_limits(limits=1), progress("product quantisation parts", total=self.levels) as advance:
            for axes in rotated_parts(vectors, self.levels, self.rotation, self.seed):
                part = (distinct @ axes)[row.reshape(-1)]
                labels = clustered(part, self.clusters, self.restarts, self.iterations, self.seed)
                codes.append(labels)
                codebooks.append((centroids(part, labels) - mean @ axes) @ axes.T)
                advance()
        codebooks[0] += mean
        return Coding(np.stack(codes, axis=1), codebooks, inputs.embeddings)


def rotated_parts(vectors: Matrix, parts: int, rotation: RotationKind, seed: int) -> list[FloatMatrix]:
    """Axes (D, D_l) of each part, together an orthonormal basis; parts differ in their width by at most 1."""
    width = vectors.shape[1]
    axes: FloatMatrix = np.eye(width)
    columns: list[NDArray[np.int64]] = np.array_split(np.arange(width), parts)
    if rotation == "random":
        axes = np.linalg.qr(np.random.default_rng(seed).normal(size=(width, width)))[0]
    elif rotation == "pca":
        centred = vectors - vectors.mean(axis=0)
        variances, axes = np.linalg.eigh(centred.T @ centred / len(vectors))
        columns = _dealt(variances, [len(part) for part in columns])
    return [axes[:, part] for part in columns]


def _dealt(variances: FloatMatrix, widths: Sequence[int]) -> list[NDArray[np.int64]]:
    """Deal axes, the largest variance first, each to the part with the smallest product so far that has room."""
    logs = np.log(np.maximum(variances, 1e-12 * max(variances.max(), 1e-300)))
    logs -= logs.min()  # factors of at least 1, so that products grow with every axis
    parts: list[list[int]] = [[] for _ in widths]
    for axis in np.argsort(-logs, kind="stable"):
        free = [part for part, width in enumerate(widths) if len(parts[part]) < width]
        least = min(free, key=lambda part: (sum(logs[parts[part]]), part))
        parts[least].append(int(axis))
    return [np.array(part, dtype=np.int64) for part in parts]
