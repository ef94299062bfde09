"""Statistics of a catalogue against slow loops."""

import numpy as np
import pytest
import torch
from helpers import slow_catalogue as slow
from helpers.models import random_codes
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from apao.codes.itemcodes import ItemCodes
from apao.codes.statistics import CodeStatistics
from apao.codes.trie import Trie

# Few tokens per level, so that prefixes and whole codes are shared.
tables = st.tuples(st.integers(1, 12), st.integers(1, 5)).flatmap(
    lambda shape: arrays(np.int64, shape, elements=st.integers(0, 2))
)
TINY = [[[0]], [[0, 0, 0]], [[0, 0], [0, 1]], [[0, 0], [1, 0]], [[2, 1], [2, 1]]]


def items_of(codes):
    return [tuple(row) for row in codes.tokens.tolist()]


def targets_of(codes, seed, examples=9):
    """Training targets, with unequal counts of items, some of them 0."""
    return np.random.default_rng(seed).integers(0, codes.items, examples)


def catalogue_of(codes, targets=(), embeddings=None):
    return CodeStatistics(codes, Trie.of(codes), np.array(targets, dtype=np.int64), embeddings)


def gains_of(codes, targets):
    """Prefix to its information gain by the module."""
    found = catalogue_of(codes, targets).information_gain
    return dict(zip(slow.prefixes(items_of(codes)), found.tolist(), strict=True))


def check_all(codes, seed):
    items, targets = items_of(codes), targets_of(codes, seed)
    known = slow.prefixes(items)
    embeddings = np.random.default_rng(seed).normal(size=(codes.items, 3)).astype(np.float32)
    catalogue = catalogue_of(codes, targets, embeddings)
    counts = [slow.token_count(items, targets, token) for token in range(len(codes.vocabulary))]
    assert catalogue.token_counts.tolist() == counts
    assert gains_of(codes, targets) == pytest.approx(
        {prefix: slow.information_gain(items, targets, prefix) for prefix in known}, abs=1e-9
    )
    expected = slow.level_gains(items, embeddings.astype(float).tolist())
    assert catalogue.level_gains.tolist() == pytest.approx(expected, abs=1e-10)


@given(tables, st.integers(0, 10**6))
@settings(max_examples=40)
def test_random_catalogues_against_slow_loops(table, seed):
    check_all(ItemCodes(table), seed)


@pytest.mark.parametrize("table", TINY)
def test_one_and_two_items_against_slow_loops(table):
    check_all(ItemCodes(np.array(table)), 0)


@pytest.mark.parametrize("items", [30, 60])
def test_larger_catalogues_against_slow_loops(items):
    check_all(random_codes(items, 4, 5, seed=items), items)


def test_items_that_share_a_code_share_its_targets():
    codes = ItemCodes(np.array([[0, 0], [0, 0], [0, 1]]))
    assert catalogue_of(codes, [0, 1, 1, 2]).token_counts.tolist() == [0, 0, 0, 4, 3, 1]
    # One of two codes, 3 : 1. The first token leaves both; the second settles it.
    bits = 2 - 0.75 * np.log2(3)
    expected = {(): 0, (3,): 0, (3, 4): bits, (3, 5): bits}
    assert gains_of(codes, [0, 1, 1, 2]) == pytest.approx(expected, abs=1e-12)


@given(tables, st.integers(0, 10**6))
@settings(max_examples=40)
def test_a_token_gains_nothing_where_it_rules_out_no_expected_code(table, seed):
    """The gain is 0 where one code with a training target is left, or all that are left have this token."""
    codes = ItemCodes(table)
    # All codes have different numbers of targets, so that entropies are not equal by chance.
    present = np.random.default_rng(seed).permutation(len(codes.distinct))[: 1 + len(codes.distinct) // 2]
    first_item = [int(np.flatnonzero(codes.code_of_item == code)[0]) for code in present]
    targets = [item for n, item in enumerate(first_item) for _ in range(7**n % 1009)]
    items = items_of(codes)
    for prefix, gain in gains_of(codes, targets).items():
        before = slow.targets_below(items, targets, prefix[:-1])
        after = slow.targets_below(items, targets, prefix)
        assert (gain == 0) == (len(before) <= 1 or len(after) == len(before))


def test_with_a_choice_at_every_step_zero_gain_means_one_expected_code_is_left():
    """A full tree: the gain is 0 only where at most one code with a training target is left."""
    codes = ItemCodes(np.array([[a, b, c] for a in range(3) for b in range(2) for c in range(2)]))
    items = items_of(codes)
    # Below 0: one code has targets; below 1: one on each side; below 2: all.
    targets = [0] * 3 + [4, 4, 7] + [8, 9, 9, 10, 10, 10, 11]
    zero = {prefix for prefix, gain in gains_of(codes, targets).items() if prefix and gain == 0}
    left = {p for p in slow.prefixes(items) if p and len(slow.targets_below(items, targets, p[:-1])) <= 1}
    assert zero == left and len(zero) > 4


def test_a_token_may_gain_nothing_by_chance_or_leave_more_to_know_than_before():
    """Half the prior on one code, half on four: 2 bits before, and 2 bits after the token of the four."""
    codes = ItemCodes(np.array([[0, 0]] + [[1, i] for i in range(4)]))
    one, four = [p for p in slow.prefixes(items_of(codes)) if len(p) == 1]
    gains = gains_of(codes, [0] * 4 + [1, 2, 3, 4])
    assert gains[four] == 0 and gains[one] == pytest.approx(2)
    assert gains_of(codes, [0] * 8 + [1, 2, 3, 4])[four] < -0.4


def test_a_level_that_takes_a_group_apart_has_a_negative_gain():
    """Means minimise squares and not distances: two groups with one outlier each are further from their centres."""
    codes = ItemCodes(np.array([[0, i] for i in range(4)] + [[1, i] for i in range(4)]))
    embeddings = np.array([-1.0, 0, 0, 0, 0, 0, 0, 1])[:, None]
    # 2/8 before; in each group 0.75 + 3 * 0.25 of 4 after; 0 once every item is alone.
    assert catalogue_of(codes, embeddings=embeddings).level_gains.tolist() == pytest.approx([0.25 - 0.375, 0.375])


def test_level_gains_take_items_to_their_own_place():
    """Without collisions the gains sum to the mean distance from the centre of all items."""
    codes = ItemCodes(np.array([[0, 0, 0], [0, 1, 0], [1, 0, 0], [1, 0, 1], [1, 2, 0]]))
    points = np.random.default_rng(3).normal(5, 2, (5, 4))
    total = np.linalg.norm(points - points.mean(0), axis=1).mean()
    gains, shifted = (catalogue_of(codes, embeddings=place).level_gains for place in (points, points + 100))
    assert gains.sum().item() == pytest.approx(total)
    torch.testing.assert_close(shifted, gains, atol=1e-10, rtol=0)


def test_facts_are_computed_once_and_only_when_asked_for():
    catalogue = catalogue_of(random_codes(6, 2, 3), [0, 1])
    assert catalogue.token_counts is catalogue.token_counts
    assert catalogue.prefix_counts.tolist() == list(catalogue.trie.prefix_counts)
    with pytest.raises(ValueError, match=r"from the items' embeddings; declare Needs\(embeddings=True\)"):
        _ = catalogue.level_gains
