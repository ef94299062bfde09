"""The untrained baselines against counting and against simulation."""

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apao.codes.itemcodes import ItemCodes
from apao.evaluation.baselines import most_popular_ranks, random_metrics
from apao.evaluation.metrics import CUTOFFS
from apao.stages.baselines import baselines
from apao.study.paths import DatasetPaths


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6)), min_size=1, max_size=30))
def test_most_popular_ranks(catalogue):
    """Compare with explicit lists of pairs of training count and code."""
    counts, drawn = np.array(catalogue).T
    codes = ItemCodes(drawn[:, None])
    code_ranks, item_ranks = most_popular_ranks(counts, codes.code_of_item, np.arange(len(counts)))
    items = sorted(range(len(counts)), key=lambda item: (-counts[item], item))
    listed = list(dict.fromkeys(drawn[item] for item in items))
    assert item_ranks.tolist() == [items.index(item) + 1 for item in range(len(counts))]
    assert code_ranks.tolist() == [listed.index(code) + 1 for code in drawn]


def test_a_code_of_many_items_by_hand():
    """The list is item 3, 0, 2, 1, 4; codes a a b a c, so the code list is a (of item 3), b, c."""
    codes, items = most_popular_ranks(np.array([5, 2, 3, 9, 0]), np.array([0, 0, 1, 0, 2]), np.array([1, 2, 4, 3]))
    assert codes.tolist() == [1, 2, 3, 1]
    assert items.tolist() == [4, 3, 5, 1]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=30))
def test_without_collisions_both_levels_are_one(counts):
    codes, items = most_popular_ranks(np.array(counts), np.arange(len(counts))[::-1], np.arange(len(counts)))
    assert codes.tolist() == items.tolist()
    metrics = random_metrics(len(counts), len(counts))
    assert all(metrics[f"item_{name}"] == value for name, value in metrics.items() if not name.startswith("item_"))


@pytest.mark.parametrize("codes", [1, 3, 7, 60])
def test_random_metrics_against_simulation(codes):
    rounds, rng, items = 20_000, np.random.default_rng(0), 70
    found = random_metrics(codes, items)
    for level, count in (("", codes), ("item_", items)):
        places = rng.integers(1, count + 1, rounds)
        for k in CUTOFFS:
            for name, values in (("recall", places <= k), ("ndcg", (places <= k) / np.log2(places + 1))):
                tolerance = 5 * values.std() / rounds**0.5 + 1e-12
                assert abs(found[f"{level}{name}@{k}"] - values.mean()) <= tolerance


def test_a_catalogue_smaller_than_a_cutoff_is_ranked_whole():
    assert random_metrics(7, 9)["recall@20"] == 1 and random_metrics(7, 9)["item_recall@20"] == 1


def test_the_stage(toy):
    """Popularity counts training parts only; ranks are those of the test items and of their codes."""
    baselines("toy")
    metrics = json.loads(DatasetPaths("toy").baselines.read_text())
    rows = [
        toy.histories.items[toy.histories.offsets[u] : toy.histories.offsets[u + 1]].tolist()
        for u in range(toy.histories.users)
    ]
    counts = Counter(item for row in rows for item in row[:-2])
    order = sorted(range(toy.codes.items), key=lambda item: (-counts[item], item))
    codes = [tuple(code) for code in toy.codes.codes.tolist()]
    listed = list(dict.fromkeys(codes[item] for item in order))
    ranks = np.array([listed.index(codes[row[-1]]) + 1 for row in rows])
    item_ranks = np.array([order.index(row[-1]) + 1 for row in rows])
    assert (ranks < item_ranks).any()
    assert metrics["most-popular"]["users"] == metrics["random"]["users"] == len(rows)
    for k in CUTOFFS:
        for level, at in (("", ranks), ("item_", item_ranks)):
            assert metrics["most-popular"][f"{level}recall@{k}"] == pytest.approx((at <= k).mean())
            assert metrics["most-popular"][f"{level}ndcg@{k}"] == pytest.approx(((at <= k) / np.log2(at + 1)).mean())
        assert metrics["random"][f"recall@{k}"] == pytest.approx(min(1, k / len(listed)))
        assert metrics["random"][f"item_recall@{k}"] == pytest.approx(k / toy.codes.items)
