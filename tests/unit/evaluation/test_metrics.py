"""Metrics on cases computed by hand, and item-level ones by enumerating every order of the items."""

import math
from itertools import permutations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from apao.codes.itemcodes import ItemCodes
from apao.codes.trie import Trie
from apao.decoding.beam import Beams
from apao.evaluation.metrics import (
    CUTOFFS,
    code_ranks,
    items_before,
    items_per_state,
    prefixes_kept,
    rank_metrics,
)


def beams_of(tokens, scores=None):
    tokens = torch.as_tensor(tokens)
    return Beams(tokens, torch.zeros(tokens.shape[:2]) if scores is None else torch.tensor(scores), ())


def table_of(rank, before, group):
    return pd.DataFrame({"rank": rank, "items_before": before, "group": group})


def test_code_ranks():
    tokens = [[[3, 5], [3, 6], [4, 5]], [[4, 5], [3, 5], [3, 6]], [[3, 5], [4, 6], [3, 6]]]
    scores = [[-1.0, -2.0, -3.0]] * 3
    targets = torch.tensor([[4, 5], [4, 5], [5, 5]])
    assert code_ranks(beams_of(tokens, scores), targets).tolist() == [3, 1, 0]
    assert code_ranks(beams_of(tokens, scores), torch.tensor([[4, 6], [3, 6], [3, 5]])).tolist() == [0, 3, 1]


def test_rank_metrics_by_hand():
    """Five users: found first, third, not found, seventh, twentieth; no shared codes."""
    rank = np.array([1, 3, 0, 7, 20])
    found = rank_metrics(table_of(rank, np.maximum(rank - 1, 0), 1))
    gain = {r: 1 / math.log2(r + 1) for r in (1, 3, 7, 20)}
    expected = {
        "recall@5": 2 / 5,
        "recall@10": 3 / 5,
        "recall@20": 4 / 5,
        "ndcg@5": (1 + 0.5) / 5,
        "ndcg@10": (1 + 0.5 + 1 / 3) / 5,
        "ndcg@20": (1 + 0.5 + 1 / 3 + gain[20]) / 5,
    }
    assert gain[3] == 0.5 and gain[7] == pytest.approx(1 / 3)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-12)
        assert found[f"item_{name}"] == pytest.approx(value, abs=1e-12)
    assert len(found) == 4 * len(CUTOFFS)


def test_a_collision_at_the_cutoff_by_hand():
    """Code rank 5, but six items on the codes before it and three on its own: places 7, 8 and 9."""
    found = rank_metrics(table_of([5], [6], [3]))
    assert found["recall@5"] == 1 and found["item_recall@5"] == 0
    assert found["ndcg@5"] == pytest.approx(1 / math.log2(6))
    assert found["item_ndcg@10"] == pytest.approx((1 / math.log2(8) + 1 / math.log2(9) + 1 / math.log2(10)) / 3)
    # Places 9, 10 and 11: two of the three count at 10.
    assert rank_metrics(table_of([5], [8], [3]))["item_recall@10"] == pytest.approx(2 / 3)


# Numeric and string order ("10" < "2") differ, so tokens and codes are sorted differently.
VALUES = [2, 10, 3, 11, 1, 20, 100, 5]


@given(sizes=st.lists(st.integers(1, 3), min_size=1, max_size=8), data=st.data())
@settings(max_examples=60)
def test_item_level_metrics_against_every_order_within_groups(sizes, data):
    """Beams over some of the codes in some order; the target on any code, in the beam or not."""
    pairs = [[VALUES[i % 4], VALUES[i]] for i in range(len(sizes))]
    rows = [pair for pair, size in zip(pairs, sizes, strict=True) for _ in range(size)]
    rows = data.draw(st.permutations(rows))
    codes = ItemCodes(np.array(rows))
    trie = Trie.of(codes)
    order = data.draw(st.permutations(range(len(codes.distinct))))[: data.draw(st.integers(1, len(sizes)))]
    target = data.draw(st.integers(0, codes.items - 1))

    beams = beams_of(codes.distinct_tokens[None, order])
    ranks = code_ranks(beams, torch.as_tensor(codes.tokens[target])[None])
    before = items_before(beams, ranks, trie, items_per_state(codes, trie))
    found = rank_metrics(table_of(ranks.numpy(), before.numpy(), codes.items_per_code[codes.code_of_item[[target]]]))

    groups = [np.flatnonzero(codes.code_of_item == code).tolist() for code in order]
    ahead, places = 0, []
    for group in groups:
        if target in group:
            places = [ahead + each.index(target) + 1 for each in permutations(group)]
        ahead += len(group)
    for k in CUTOFFS:
        hits = [place for place in places if place <= k]
        orders = max(1, len(places))
        assert found[f"item_recall@{k}"] == pytest.approx(len(hits) / orders)
        assert found[f"item_ndcg@{k}"] == pytest.approx(sum(1 / math.log2(place + 1) for place in hits) / orders)


@given(st.lists(st.tuples(st.sampled_from(VALUES), st.sampled_from(VALUES)), min_size=1, max_size=25))
def test_items_per_state(rows):
    codes = ItemCodes(np.array(rows))
    trie = Trie.of(codes)
    found = items_per_state(codes, trie).tolist()
    prefixes = sorted({tuple(row[:m]) for row in codes.tokens.tolist() for m in range(3)}, key=lambda p: (len(p), p))
    expected = [sum(tuple(row) == prefix for row in codes.tokens.tolist()) for prefix in prefixes]
    assert found == expected and sum(found) == codes.items


def test_items_before_by_hand():
    """Codes 2-2 (3 items), 2-10 (1 item), 10-2 (2 items); beams 10-2, 2-2, 2-10."""
    codes = ItemCodes(np.array([[2, 2], [10, 2], [2, 2], [2, 10], [10, 2], [2, 2]]))
    trie = Trie.of(codes)
    counts = items_per_state(codes, trie)
    tokens = codes.tokens[[1, 0, 3]]
    ranks = torch.tensor([1, 2, 3, 0])
    beams = beams_of(np.repeat(tokens[None], 4, axis=0))
    assert items_before(beams, ranks, trie, counts).tolist() == [0, 2, 5, 0]


def test_prefixes_kept_by_hand():
    states = (torch.tensor([[1, 2], [2, 1]]), torch.tensor([[5, 4, 6], [5, 4, -1]]))
    targets = torch.tensor([[2, 6], [1, 7]])
    assert prefixes_kept(states, targets).tolist() == [[True, True], [True, False]]
    # Among the best beam only.
    assert prefixes_kept(states, targets, beams=1).tolist() == [[False, False], [False, False]]
    assert prefixes_kept(states, torch.tensor([[1, 5], [2, 5]]), beams=1).tolist() == [[True, True], [True, True]]
