"""Product quantisation, against scikit-learn and faiss."""

from itertools import pairwise
from types import SimpleNamespace

import faiss
import numpy as np
import pytest
from sklearn.cluster import KMeans

from apao.codes.coding import nearest_codes
from apao.codes.tokenizers.base import TOKENIZERS
from apao.codes.tokenizers.pq import _dealt, rotated_parts
from apao.errors import UserError

ROWS = np.random.default_rng(0).normal(size=(400, 10)) * np.array([9.0, 8, 7, 6, 5, 0.5, 0.4, 0.3, 0.2, 0.1]) + 3
ROTATIONS = ("none", "random", "pca")


def fitted(rows=ROWS, **changes):
    entry = {"levels": 3, "clusters": 16, **changes}
    return TOKENIZERS["pq"](method="pq", embedder="some", **entry).fit(SimpleNamespace(embeddings=rows))


def test_parts_are_clustered_by_kmeans():
    coding = fitted()
    for level, part in enumerate((slice(0, 4), slice(4, 7), slice(7, 10))):
        expected = KMeans(16, n_init=1, max_iter=100, random_state=42).fit(ROWS[:, part])
        assert np.array_equal(coding.codes[:, level], expected.labels_)
        book = np.zeros((16, 10))
        book[:, part] = expected.cluster_centers_ - ROWS[:, part].mean(axis=0)
        book += ROWS.mean(axis=0) if level == 0 else 0
        np.testing.assert_allclose(coding.codebooks[level], book, atol=1e-8)


@pytest.mark.parametrize("rotation", ROTATIONS)
def test_parts_are_a_basis(rotation):
    parts = rotated_parts(ROWS, 3, rotation, 1)
    axes = np.hstack(parts)
    np.testing.assert_allclose(axes.T @ axes, np.eye(10), atol=1e-12)
    assert [part.shape[1] for part in parts] == [4, 3, 3]


def test_pca_balances_the_variances_of_the_parts():
    def spread(rotation):
        logs = [
            np.log(np.linalg.eigvalsh(np.cov((ROWS @ axes).T))).sum() for axes in rotated_parts(ROWS, 5, rotation, 1)
        ]
        return max(logs) - min(logs)

    assert spread("pca") < 0.5 * spread("none")
    assert fitted(rotation="pca", levels=5).relative_errors[-1] < 0.8 * fitted(levels=5).relative_errors[-1]


@pytest.mark.parametrize("rotation", ROTATIONS)
def test_codes_are_those_of_faiss(rotation):
    """faiss's ProductQuantizer with the same centroids gives the rotated vectors the same codes."""
    coding = fitted(levels=2, rotation=rotation)
    parts = rotated_parts(ROWS, 2, rotation, 42)
    quantiser = faiss.ProductQuantizer(10, 2, 4)
    first, second = (book @ axes for book, axes in zip(coding.codebooks, parts, strict=True))
    books = [first, second + ROWS.mean(axis=0) @ parts[1]]
    faiss.copy_array_to_vector(np.stack(books).astype(np.float32).ravel(), quantiser.centroids)
    packed = quantiser.compute_codes(np.ascontiguousarray(ROWS @ np.hstack(parts), dtype=np.float32))[:, 0]
    expected = np.stack([packed & 15, packed >> 4], axis=1)
    assert (coding.codes == expected).all(axis=1).mean() > 0.99  # float32 there, float64 here


def test_as_good_as_faiss_trained_by_itself():
    quantiser, rows = faiss.ProductQuantizer(10, 2, 4), ROWS.astype(np.float32)
    quantiser.train(rows)
    theirs = np.square(rows - quantiser.decode(quantiser.compute_codes(rows))).sum(axis=1).mean()
    spread = np.square(ROWS - ROWS.mean(axis=0)).sum(axis=1).mean()
    assert fitted(levels=2).relative_errors[-1] == pytest.approx(theirs / spread, rel=0.1)


def test_errors_decrease_from_that_of_the_mean():
    """Also of vectors that are far from the origin; new ones get their nearest codes."""
    errors = [1.0, *fitted().relative_errors]
    assert all(after < before for before, after in pairwise(errors))
    coding = fitted()
    assert (nearest_codes(ROWS, coding.codebooks) == coding.codes).all(axis=1).mean() > 0.99


@pytest.mark.parametrize("rotation", ["random", "pca"])
def test_equal_vectors_get_equal_codes(rotation):
    """Also where a matrix product rounds equal rows differently, at the edges of its blocks."""
    rng = np.random.default_rng(8)
    few = rng.normal(size=(40, 24)).astype(np.float32)
    index = rng.integers(0, 40, 301)
    params = TOKENIZERS["pq"](method="pq", embedder="e", levels=4, clusters=64, rotation=rotation)
    codes = params.fit(SimpleNamespace(embeddings=few[index])).codes
    assert len(np.unique(codes, axis=0)) == len(np.unique(index))


def test_more_parts_than_dimensions_are_refused():
    with pytest.raises(UserError, match="pq: 11 levels need embeddings of at least as many dimensions, these have 10"):
        fitted(levels=11)


def test_axes_of_variances_below_one_are_dealt_evenly():
    variances = np.array([0.2, 0.2, 1e-4, 1e-4])
    assert [sorted(variances[part]) for part in _dealt(variances, [2, 2])] == [[1e-4, 0.2]] * 2


def test_principal_axes_do_not_depend_on_where_the_vectors_are():
    parts = (rotated_parts(rows, 5, "pca", 1) for rows in (ROWS, ROWS + 100 * np.eye(10)[9]))
    for near, far in zip(*parts, strict=True):
        np.testing.assert_allclose(near @ near.T, far @ far.T, atol=1e-6)
