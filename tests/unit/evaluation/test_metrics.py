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
from apao.decoding.beam import Beams
from apao.errors import UserError
from apao.evaluation.list_metrics import popularity_groups
from apao.evaluation.metrics import (
    CODE_LEVEL,
    CUTOFFS,
    code_metrics,
    code_ranks,
    exact_ranks,
    items_before,
    metric_names,
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


def test_code_metrics_are_those_of_the_code_level():
    found = {name: values.mean() for name, values in code_metrics(np.array([1, 3, 0, 12])).items()}
    assert list(found) == metric_names(levels=[CODE_LEVEL])
    assert found["recall@5"] == 0.5 and found["recall@20"] == 0.75
    assert found["ndcg@5"] == pytest.approx((1 + 1 / np.log2(4)) / 4)
    assert found.items() <= rank_metrics(table_of([1, 3, 0, 12], 0, 1)).items()


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
    order = data.draw(st.permutations(range(len(codes.distinct))))[: data.draw(st.integers(1, len(sizes)))]
    target = data.draw(st.integers(0, codes.items - 1))

    beams = beams_of(codes.distinct_tokens[None, order])
    ranks = code_ranks(beams, torch.as_tensor(codes.tokens[target])[None])
    before = items_before(codes.items_per_code[None, order], ranks.numpy())
    found = rank_metrics(table_of(ranks.numpy(), before, codes.items_per_code[codes.code_of_item[[target]]]))

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


def test_items_before_by_hand():
    """Codes with 2, 3 and 1 items, ranked in this order."""
    assert items_before(np.array([[2, 3, 1]] * 4), np.array([1, 2, 3, 0])).tolist() == [0, 2, 5, 0]


def test_scores_that_are_no_numbers_have_no_ranks():
    with pytest.raises(UserError, match="the model scores codes with nan"):
        exact_ranks(torch.tensor([[0.5, math.nan]]), torch.tensor([0]))


def test_exact_ranks_by_hand():
    """Equal scores share the better rank."""
    scores = torch.tensor([[-1.0, -3.0, -2.0], [-1.0, -1.0, -2.0]])
    ranks = [exact_ranks(scores, torch.tensor([code, code])).tolist() for code in range(3)]
    assert ranks == [[1, 1], [3, 1], [2, 3]]


def test_prefixes_kept_by_hand():
    states = (torch.tensor([[1, 2], [2, 1]]), torch.tensor([[5, 4, 6], [5, 4, -1]]))
    targets = torch.tensor([[2, 6], [1, 7]])
    assert prefixes_kept(states, targets).tolist() == [[True, True], [True, False]]
    # Several codes of each user.
    several = torch.stack([targets, torch.tensor([[3, 5], [2, 5]])], dim=1)
    assert prefixes_kept(states, several).tolist() == [[[True, True], [False, True]], [[True, False], [True, True]]]


def test_the_head_is_rounded_up():
    assert popularity_groups(np.array([3, 2, 1, 1, 1, 0])).tolist() == [0, 0, 1, 1, 1, 2]
