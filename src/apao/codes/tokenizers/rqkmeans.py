"""Residual K-means (RQ-K-means): level l clusters the residuals of the levels before it.

Shapes: I items, T levels, D width, k_l clusters of level l.

All computation is in float64 and on one thread: with float32 rounding, or sums whose order depends on the number of
threads, an item could get different codes on different machines.

A level's centroids are fitted on all residuals (Lloyd's algorithm), or on mini-batches of them for catalogues of a
million items. The residuals are then kept in float32, half as large, and converted a piece at a time.
"""

from __future__ import annotations

from typing import Literal, Self

import numpy as np
from pydantic import PositiveInt, model_validator
from threadpoolctl import threadpool_limits
from typing_extensions import override

from apao.codes.coding import Coding, Matrix, mean_spread, pieces
from apao.codes.collisions import CollisionPolicy
from apao.codes.kmeans import centroids, clustered, clustered_by_mini_batches, mini_batch_items
from apao.codes.tokenizers.base import TOKENIZERS, Inputs, LevelledTokenizer
from apao.parameters import Seed
from apao.progress import progress

# A residual this small relative to the spread of the embeddings is rounding error. It is set to 0, so that levels do
# not cluster the rounding errors of items that have a cluster of their own.
NEGLIGIBLE = 1e-6
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
                labels = clustered_by_mini_batches(residual, clusters, mini_batches, seed)
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
        items = mini_batch_items(len(residual), clusters)
        facts = {"kmeans": "mini-batch", "mini_batches": mini_batches, "mini_batch_items": items}
        notes = (f"centroids of each level fitted on {mini_batches:,} mini-batches of {items:,} items",)
    return Coding(np.stack(codes, axis=1), codebooks, embeddings, facts, notes)
