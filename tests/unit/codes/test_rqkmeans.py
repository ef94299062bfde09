import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydantic import ValidationError
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_info, threadpool_limits

from apao.codes import coding, kmeans
from apao.codes.coding import relative_errors, residuals
from apao.codes.collisions import reassigned
from apao.codes.tokenizers.rqkmeans import ResidualKMeans, residual_kmeans


def test_by_hand():
    # Level 1: {0, 2} around 1 and {100, 102} around 101; level 2: residuals -1 and 1.
    # Spread about the mean 51: (51^2 + 49^2 + 49^2 + 51^2) / 4 = 2501.
    found = residual_kmeans(np.array([[0.0], [2.0], [100.0], [102.0]]), levels=3, clusters=2)
    level1, level2, level3 = found.codebooks
    assert level1[found.codes[:, 0]].tolist() == [[1], [1], [101], [101]]
    assert level2[found.codes[:, 1]].tolist() == [[-1], [1], [-1], [1]]
    assert level3.tolist() == [[0]]
    assert found.codes[:, 2].tolist() == [0, 0, 0, 0]
    assert found.relative_errors == pytest.approx([1 / 2501, 0, 0], abs=1e-15)


def test_first_level_is_kmeans_on_the_embeddings():
    rows = np.random.default_rng(0).normal(size=(500, 8))
    found = residual_kmeans(rows, levels=2, clusters=20, restarts=2, iterations=50, seed=3)
    expected = KMeans(20, n_init=2, max_iter=50, random_state=3).fit(rows)
    assert np.array_equal(found.codes[:, 0], expected.labels_)
    for cluster in range(20):
        np.testing.assert_allclose(found.codebooks[0][cluster], rows[expected.labels_ == cluster].mean(axis=0))
    residual = rows - found.codebooks[0][found.codes[:, 0]]
    second = KMeans(20, n_init=2, max_iter=50, random_state=3).fit(residual)
    assert np.array_equal(found.codes[:, 1], second.labels_)


@given(
    st.tuples(st.integers(1, 20), st.integers(1, 3)).flatmap(
        lambda shape: arrays(np.float32, shape, elements=st.floats(-8, 8, width=16))
    ),
    st.integers(1, 4),
    st.integers(1, 8),
)
@settings(max_examples=40, deadline=None)
def test_properties(rows, levels, clusters):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = residual_kmeans(rows, levels, clusters)
    codes, codebooks, errors = found.codes, found.codebooks, found.relative_errors
    assert codes.shape == (len(rows), levels)
    residual = rows.astype(np.float64)
    for level, codebook in enumerate(codebooks):
        assert set(codes[:, level]) == set(range(len(codebook)))
        distinct = len(np.unique(residual.round(9) + 0.0, axis=0))
        assert len(codebook) <= min(clusters, distinct)
        residual = residual - codebook[codes[:, level]]
    assert all(after <= before + 1e-12 for before, after in zip([1.0, *errors], errors, strict=False))
    np.testing.assert_allclose(residuals(rows, codes, codebooks), residual, atol=1e-9)
    spread = np.square(rows - rows.mean(axis=0, dtype=np.float64)).sum(axis=1).mean()
    if spread > 1e-9:
        assert errors[-1] == pytest.approx(np.square(residual).sum(axis=1).mean() / spread, abs=1e-9)


def test_fewer_items_than_clusters_get_one_each():
    rows = np.random.default_rng(1).normal(size=(10, 4))
    found = residual_kmeans(rows, levels=4, clusters=256)
    assert [len(codebook) for codebook in found.codebooks] == [10, 1, 1, 1]
    assert sorted(found.codes[:, 0]) == list(range(10))
    assert found.relative_errors == [0, 0, 0, 0]


def test_one_item_and_equal_items():
    for rows in (np.full((1, 3), 0.1), np.full((7, 3), 0.1)):
        found = residual_kmeans(rows, levels=2, clusters=4)
        assert not found.codes.any()
        assert found.relative_errors == [0, 0]
        assert found.codebooks[0].tolist() == [[0.1, 0.1, 0.1]]


def test_rounding_is_not_clustered():
    # Ten places with five items each, which differ by less than the resolution of float32.
    rng = np.random.default_rng(2)
    rows = np.repeat(rng.normal(size=(10, 16)), 5, axis=0) + 1e-9 * rng.normal(size=(50, 16))
    found = residual_kmeans(rows, levels=3, clusters=10)
    assert [len(codebook) for codebook in found.codebooks] == [10, 1, 1]
    assert len(np.unique(found.codes, axis=0)) == 10


def test_balanced_clusters_have_equal_sizes():
    rng = np.random.default_rng(4)
    rows = np.concatenate([rng.normal(size=(130, 3)), rng.normal(9, 0.1, size=(20, 3))])
    found = residual_kmeans(rows, levels=2, clusters=8, balanced=True)
    plain = residual_kmeans(rows, levels=2, clusters=8)
    for level in range(2):
        counts = np.bincount(found.codes[:, level])
        assert sorted(counts) == [18] * 2 + [19] * 6  # 150 = 2 * 18 + 6 * 19
        assert np.ptp(np.bincount(plain.codes[:, level])) > 1
        left = rows if level == 0 else rows - found.codebooks[0][found.codes[:, 0]]
        for cluster in range(8):
            np.testing.assert_allclose(
                found.codebooks[level][cluster], left[found.codes[:, level] == cluster].mean(axis=0)
            )


def test_balanced_clusters_are_the_groups_where_these_are_of_one_size():
    rng = np.random.default_rng(5)
    group = rng.permutation(np.repeat(np.arange(6), 10))
    rows = 10 * np.eye(6)[group] + rng.normal(0, 0.1, (60, 6))
    labels = residual_kmeans(rows, levels=1, clusters=6, balanced=True).codes[:, 0]
    assert len(set(zip(labels, group, strict=True))) == 6
    more = [residual_kmeans(rows, 2, 5, restarts=restarts, balanced=True).relative_errors[0] for restarts in (1, 4)]
    assert more[1] <= more[0]


def grouped(items, width=16, seed=0):
    """Vectors of 12 groups of 6 groups each: the first two levels have something to find."""
    rng = np.random.default_rng(seed)
    groups, subgroups = 8 * rng.normal(size=(12, width)), 2 * rng.normal(size=(72, width))
    chosen = rng.integers(72, size=items)
    return (groups[chosen % 12] + subgroups[chosen] + 0.5 * rng.normal(size=(items, width))).astype(np.float32)


def test_mini_batches_come_close_to_all_items():
    rows = grouped(20_000)
    exact = residual_kmeans(rows, levels=3, clusters=16)
    found = residual_kmeans(rows, levels=3, clusters=16, mini_batches=60)
    for theirs, ours in zip(exact.relative_errors, found.relative_errors, strict=True):
        assert 0.8 * theirs < ours < 1.25 * theirs
    for level, codebook in enumerate(found.codebooks):
        assert set(found.codes[:, level]) == set(range(len(codebook)))


def test_mini_batches_in_plain_numpy():
    """Centroids are the means of their items, and each item has the code of a level by its residual there."""
    rows = grouped(9_000)
    found = residual_kmeans(rows, levels=2, clusters=8, mini_batches=20)
    residual = rows.astype(np.float64)
    for codes, codebook in zip(found.codes.T, found.codebooks, strict=True):
        for cluster, centroid in enumerate(codebook):
            np.testing.assert_allclose(centroid, residual[codes == cluster].mean(axis=0), atol=1e-5)
        residual -= codebook[codes]
        distances = np.square((residual + codebook[codes])[:, None] - codebook).sum(axis=2)
        # The means moved a little after the items had chosen.
        assert (distances.argmin(axis=1) == codes).mean() > 0.9


def test_mini_batches_of_few_distinct_rows_and_many_clusters():
    """As many clusters as distinct rows need no fit; one more distinct row than clusters does."""
    rows = np.repeat(grouped(40), 3, axis=0)
    assert residual_kmeans(rows, 2, 40, mini_batches=1).relative_errors == [0, 0]
    found = residual_kmeans(rows, 2, 39, mini_batches=5)
    assert found.codes.shape == (120, 2) and found.relative_errors[1] < 0.01


def test_fitting_says_what_it_did():
    rows = grouped(5_000)
    assert residual_kmeans(rows, 1, 4).facts == {"kmeans": "exact"}
    found = residual_kmeans(rows, 1, 4, mini_batches=7)
    assert found.facts == {"kmeans": "mini-batch", "mini_batches": 7, "mini_batch_items": 4096}
    assert residual_kmeans(rows, 1, 4, balanced=True).facts == {"kmeans": "balanced"}
    assert found.notes == ("centroids of each level fitted on 7 mini-batches of 4,096 items",)


@pytest.mark.parametrize("key", ["restarts", "iterations"])
def test_keys_that_mini_batches_would_not_use_are_refused(key):
    entry = {"method": "rq-kmeans", "embedder": "some", "mini_batches": 10}
    with pytest.raises(ValidationError, match="no effect with mini_batches"):
        ResidualKMeans.model_validate(entry | {key: 2})
    with pytest.raises(ValidationError, match="balanced clusters are not fitted on mini-batches"):
        ResidualKMeans.model_validate(entry | {"balanced": True})


def test_memory_of_a_large_catalogue(monkeypatch):
    """Beside the vectors, mini-batches need their residuals in float32; errors and collisions need no copy at all."""
    monkeypatch.setattr(coding, "ROWS_AT_ONCE", 1_000)
    monkeypatch.setattr(kmeans, "MINI_BATCH", 1_000)
    rows = grouped(40_000, width=64)
    # A mini-batch and pieces in float64 come to a tenth of the vectors each.
    assert peak(lambda: residual_kmeans(rows, 2, 100, mini_batches=8)) < 1.6 * rows.nbytes
    found = residual_kmeans(rows, 3, 16, mini_batches=4)
    assert peak(lambda: relative_errors(rows, found.codes, found.codebooks)) < 0.4 * rows.nbytes
    # Sorting takes some copies of the codes, each a tenth of the vectors.
    assert peak(lambda: reassigned(found.codes, rows, found.codebooks, 16)) < 1.2 * rows.nbytes


def peak(work):
    """Most bytes that numpy and Python held at once during ``work``, beyond those before it."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_relative_errors_by_hand():
    rows = np.array([[0.0, 0.0], [4.0, 0.0]])  # spread 4
    codebooks = [np.array([[1.0, 0.0], [4.0, 2.0]]), np.array([[0.0, -2.0], [-1.0, 0.0]])]
    # Residuals: (-1, 0) and (0, -2), then (0, 0) and (0, 0).
    assert relative_errors(rows, np.array([[0, 1], [1, 0]]), codebooks) == [2.5 / 4, 0.0]


def test_the_number_of_threads_changes_nothing(monkeypatch):
    """Sums of several threads would be rounded in another order: K-means has one, whatever the process has."""
    fit, threads = KMeans.fit, []

    def watched(kmeans, rows):
        threads.extend(pool["num_threads"] for pool in threadpool_info())
        return fit(kmeans, rows)

    monkeypatch.setattr(KMeans, "fit", watched)
    rows = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)
    found = []
    for limit in (1, 3):
        with threadpool_limits(limit):
            found.append(residual_kmeans(rows, levels=2, clusters=16))
    assert set(threads) == {1}
    assert np.array_equal(found[0].codes, found[1].codes)
    assert all(np.array_equal(*both) for both in zip(found[0].codebooks, found[1].codebooks, strict=True))


def test_restarts_of_balanced_clusters_differ():
    rows = np.random.default_rng(3).normal(size=(60, 4))
    errors = [residual_kmeans(rows, 1, 6, restarts=n, balanced=True).relative_errors[0] for n in (1, 8)]
    assert errors[1] < errors[0]
