from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from apao.codes.coding import Coding, squared_errors
from apao.codes.collisions import apply_policy, reassigned, with_extra_level
from apao.errors import UserError

tables = st.tuples(st.integers(1, 25), st.integers(1, 4)).flatmap(
    lambda shape: arrays(np.int64, shape, elements=st.integers(0, 2))
)


def test_extra_level_by_hand():
    codes = np.array([[1, 0], [0, 5], [1, 0], [0, 4], [1, 0], [0, 4]])
    assert with_extra_level(codes).tolist() == [[1, 0, 0], [0, 5, 0], [1, 0, 1], [0, 4, 0], [1, 0, 2], [0, 4, 1]]


@given(tables)
def test_extra_level_numbers_each_group_in_item_order(codes):
    final = with_extra_level(codes)
    assert np.array_equal(final[:, :-1], codes)
    assert len(np.unique(final, axis=0)) == len(codes)
    seen = Counter()
    for row in final.tolist():
        assert row[-1] == seen[tuple(row[:-1])]
        seen[tuple(row[:-1])] += 1


# One prefix level (0 or 100), four last-level centroids.
PREFIXES = np.array([[0.0], [100.0]])
LAST = np.array([[0.0], [1.0], [2.0], [4.0]])


def test_reassign_by_hand():
    embeddings = np.array([[1.3], [0.9], [1.4], [0.0], [101.4], [101.1]])
    codes = np.array([[0, 1], [0, 1], [0, 1], [0, 0], [1, 1], [1, 1]])
    # Under prefix 0, item 1 is nearest to code 1 and keeps it. Item 0 (distance 0.3) chooses before item 2
    # (0.4): code 2 is the nearest free one (of 2, 4); item 2 gets code 3. Under prefix 1 item 5
    # keeps code 1; item 4, at 1.4, gets code 2 (0.6 away), which is free there.
    final = reassigned(codes, embeddings, [PREFIXES, LAST], most=4)
    assert final.tolist() == [[0, 2], [0, 1], [0, 3], [0, 0], [1, 2], [1, 1]]


def test_ties_go_to_the_lower_item_and_the_lower_code():
    embeddings = np.array([[1.0], [1.0], [1.0]])
    codes = np.array([[0, 1], [0, 1], [0, 1]])
    final = reassigned(codes, embeddings, [PREFIXES, LAST], most=4)
    assert final.tolist() == [[0, 1], [0, 0], [0, 2]]


def test_codes_without_a_centroid_come_last_and_end_at_the_codebook_size():
    embeddings = np.zeros((7, 1))
    codes = np.zeros((7, 2), dtype=np.int64)
    final = reassigned(codes, embeddings, [np.zeros((1, 1)), LAST[:2]], most=5)
    assert final[:, 1].tolist() == [0, 1, 2, 3, 4, 0, 0]


def test_a_code_without_a_centroid_stands_for_no_vector():
    # What is left of the vector 5 after the prefix's 3 is 2; the last level takes 1 off, or nothing.
    errors = squared_errors(np.array([[5.0], [5.0]]), np.array([[0, 1], [0, 2]]), [np.array([[3.0]]), LAST[:2]])
    assert errors == [4.0, (1.0 + 4.0) / 2]


def test_one_level_has_the_empty_prefix():
    final = reassigned(np.array([[3], [3], [0]]), np.array([[4.0], [3.0], [0.0]]), [LAST], most=4)
    assert final.tolist() == [[3], [2], [0]]


def greedy(codes, embeddings, codebooks, most):
    """A second implementation of the policy, item by item in plain Python."""
    rows = [tuple(row) for row in codes.tolist()]
    left = embeddings.tolist()
    for row, point in zip(rows, left, strict=True):
        for book, code in zip(codebooks[:-1], row[:-1], strict=True):
            point[:] = [x - y for x, y in zip(point, book[code].tolist(), strict=True)]

    def distance(item, code):
        return sum((x - y) ** 2 for x, y in zip(left[item], codebooks[-1][code], strict=True))

    ranked = sorted(range(len(rows)), key=lambda item: (distance(item, rows[item][-1]), item))
    keepers = [item for n, item in enumerate(ranked) if rows[item] not in {rows[other] for other in ranked[:n]}]
    used = set(rows)
    for item in ranked:
        if item in keepers:
            continue
        nearest = sorted(range(len(codebooks[-1])), key=lambda code: (distance(item, code), code))
        for code in [*nearest, *range(len(codebooks[-1]), most)]:
            row = (*rows[item][:-1], code)
            if row not in used:
                used.add(row)
                rows[item] = row
                break
    return [list(row) for row in rows]


@given(tables, st.data())
@settings(max_examples=40, deadline=None)
def test_reassign_matches_brute_force_and_adds_no_collision(codes, data):
    levels, width = codes.shape[1], 2
    integers = st.integers(-3, 3)  # distances of integers are exact, ties common
    draw = lambda rows: data.draw(arrays(np.int64, (rows, width), elements=integers)).astype(float)  # noqa: E731
    codebooks, embeddings = [draw(3) for _ in range(levels)], draw(len(codes))
    most = data.draw(st.integers(3, 5))
    final = reassigned(codes, embeddings, codebooks, most)

    assert final.tolist() == greedy(codes, embeddings, codebooks, most)
    assert np.array_equal(final[:, :-1], codes[:, :-1])
    before, after = Counter(map(tuple, codes.tolist())), Counter(map(tuple, final.tolist()))
    assert set(before) <= set(after)
    for old, new in zip(map(tuple, codes.tolist()), map(tuple, final.tolist()), strict=True):
        if old != new:
            assert before[old] > 1
            assert new not in before
            assert after[new] == 1
    of_prefix = Counter(row[:-1] for row in map(tuple, codes.tolist()))
    assert len(after) == sum(min(items, most) for items in of_prefix.values())


def test_policies_of_a_coding():
    """Without ``sizes``, reassignment is bounded by the last codebook."""
    coding = Coding(np.zeros((3, 2), dtype=np.int64), [np.zeros((1, 1)), LAST[:2]], np.zeros((3, 1)))
    for policy, sizes, codes, changed in (
        ("keep", None, [[0, 0], [0, 0], [0, 0]], [False, False, False]),
        ("extra", None, [[0, 0, 0], [0, 0, 1], [0, 0, 2]], [False, True, True]),
        ("reassign", None, [[0, 0], [0, 1], [0, 0]], [False, True, False]),
        ("reassign", (1, 3), [[0, 0], [0, 1], [0, 2]], [False, True, True]),
    ):
        final, moved = apply_policy(coding, policy, sizes)
        assert (final.codes.tolist(), moved.tolist()) == (codes, changed)
        assert len(final.codebooks) == 2 and final.vectors is coding.vectors


def test_reassign_needs_codebooks():
    with pytest.raises(UserError, match="reassign needs codebooks, which these codes lack; use keep or extra"):
        apply_policy(Coding(np.zeros((3, 2), dtype=np.int64)), "reassign")
