"""The untrained baselines against counting and against simulation."""

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apao.evaluation.baselines import baselines, most_popular_ranks, random_metrics
from apao.runs import DatasetPaths
from apao.training.params import CUTOFFS


@given(st.lists(st.integers(0, 4), min_size=1, max_size=30))
def test_most_popular_ranks(counts):
    found = most_popular_ranks(np.array(counts), np.arange(len(counts)))
    for item, rank in enumerate(found):
        ahead = [other for other, count in enumerate(counts) if (-count, other) < (-counts[item], item)]
        assert rank == len(ahead) + 1


@pytest.mark.parametrize("items", [1, 3, 7, 60])
def test_random_metrics_against_simulation(items):
    rounds = 20_000
    places = np.random.default_rng(0).integers(1, items + 1, rounds)
    found = random_metrics(items)
    for k in CUTOFFS:
        for name, values in (("recall", places <= k), ("ndcg", (places <= k) / np.log2(places + 1))):
            tolerance = 5 * values.std() / rounds**0.5 + 1e-12
            assert abs(found[f"{name}@{k}"] - values.mean()) <= tolerance
            assert found[f"item_{name}@{k}"] == found[f"{name}@{k}"]


def test_the_stage(toy):
    """Popularity counts training parts only; ranks are those of the test items."""
    baselines("toy")
    metrics = json.loads(DatasetPaths("toy").baselines.read_text())
    rows = [
        toy.histories.items[toy.histories.offsets[u] : toy.histories.offsets[u + 1]].tolist()
        for u in range(toy.histories.users)
    ]
    counts = Counter(item for row in rows for item in row[:-2])
    order = sorted(range(toy.codes.items), key=lambda item: (-counts[item], item))
    ranks = np.array([order.index(row[-1]) + 1 for row in rows])
    assert metrics["most-popular"]["users"] == metrics["random"]["users"] == len(rows)
    for k in CUTOFFS:
        assert metrics["most-popular"][f"recall@{k}"] == pytest.approx((ranks <= k).mean())
        assert metrics["most-popular"][f"item_ndcg@{k}"] == pytest.approx(((ranks <= k) / np.log2(ranks + 1)).mean())
        assert metrics["random"][f"recall@{k}"] == pytest.approx(k / toy.codes.items)
