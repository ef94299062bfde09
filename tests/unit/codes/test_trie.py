import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from apao.codes.itemcodes import ItemCodes
from apao.codes.trie import Trie

# Few tokens per level, so that prefixes are shared and duplicates likely.
tables = st.tuples(st.integers(1, 25), st.integers(1, 6)).flatmap(
    lambda shape: arrays(np.int64, shape, elements=st.integers(0, 3))
)


def prefixes(codes):
    """All prefixes as token tuples, in the order of the states: by length, then lexicographic."""
    found = {tuple(row[:depth]) for row in codes.tokens.tolist() for depth in range(codes.levels + 1)}
    return sorted(found, key=lambda prefix: (len(prefix), prefix))


@given(tables)
def test_counts_and_numbering_match_the_set_of_prefixes(table):
    codes = ItemCodes(table)
    trie, expected = Trie.of(codes), prefixes(codes)
    assert trie.states == len(expected)
    assert trie.prefix_counts == tuple(
        sum(len(prefix) == depth for prefix in expected) for depth in range(1, codes.levels + 1)
    )


@given(tables)
def test_the_trie_knows_the_prefixes_of_every_code(table):
    codes = ItemCodes(table)
    trie, expected = Trie.of(codes), prefixes(codes)
    for row, states in zip(codes.distinct_tokens.tolist(), trie.prefixes.tolist(), strict=True):
        assert [expected[state] for state in states] == [tuple(row[:depth]) for depth in range(1, codes.levels + 1)]


@given(tables)
def test_legal_is_what_the_set_of_prefixes_allows(table):
    codes = ItemCodes(table)
    trie, expected = Trie.of(codes), prefixes(codes)
    mask = trie.legal(torch.arange(trie.states))
    assert mask.shape == (trie.states, len(codes.vocabulary))
    known = set(expected)
    for state, prefix in enumerate(expected):
        for token in range(len(codes.vocabulary)):
            assert mask[state, token].item() == ((*prefix, token) in known)


@given(tables)
def test_advance_follows_legal_tokens_only(table):
    codes = ItemCodes(table)
    trie, expected = Trie.of(codes), prefixes(codes)
    number = {prefix: state for state, prefix in enumerate(expected)}
    tokens = range(-1, 2 * len(codes.vocabulary))
    asked = torch.tensor([(state, token) for state in range(-1, trie.states) for token in tokens])
    reached = trie.advance(asked[:, 0], asked[:, 1])
    for (state, token), found in zip(asked.tolist(), reached.tolist(), strict=True):
        assert found == (number.get((*expected[state], token), -1) if state >= 0 else -1)


@given(tables, st.data())
@settings(max_examples=50)
def test_walk_gives_the_state_of_each_prefix(table, data):
    codes = ItemCodes(table)
    trie = Trie.of(codes)
    number = {prefix: state for state, prefix in enumerate(prefixes(codes))}
    path = data.draw(st.lists(st.integers(0, len(codes.vocabulary) - 1), min_size=codes.levels, max_size=codes.levels))
    rows = [*codes.tokens.tolist(), path]
    expected = [[number.get(tuple(row[: depth + 1]), -1) for depth in range(codes.levels)] for row in rows]
    assert trie.walk(torch.tensor(rows)).tolist() == expected
    # Any leading shape is allowed.
    assert trie.walk(torch.tensor([rows, rows])).tolist() == [expected, expected]


@given(tables, st.data())
@settings(max_examples=50)
def test_a_part_has_the_prefixes_of_its_codes(table, data):
    codes = ItemCodes(table)
    trie, expected = Trie.of(codes), prefixes(codes)
    items = data.draw(st.lists(st.integers(0, codes.items - 1), min_size=1))  # which may share a code
    part = trie.part(trie.prefixes[codes.code_of_item[items], -1])
    depths = range(1, codes.levels + 1)
    kept = {tuple(row[:depth]) for row in codes.tokens[items].tolist() for depth in depths}
    assert {expected[state] for state in part.allowed.nonzero().flatten().tolist()} == kept
    assert part.prefix_counts == tuple(sum(len(prefix) == depth for prefix in kept) for depth in depths)


def test_batched_shapes_and_finished_states():
    trie = Trie.of(ItemCodes(np.array([[0, 0], [0, 1], [1, 0]])))
    states = torch.tensor([[0, 1, 2], [3, 5, -1]])
    mask = trie.legal(states)
    assert mask.shape == (2, 3, 7)
    # Vocabulary: 3 specials, <a_0> <a_1> = 3 4, <b_0> <b_1> = 5 6; states: root, a0, a1, a0b0, a0b1, a1b0.
    assert [[row.nonzero().flatten().tolist() for row in rows] for rows in mask] == [
        [[3, 4], [5, 6], [5]],
        [[], [], []],
    ]
    assert trie.advance(states, torch.tensor([[4, 6, 5], [5, 0, 3]])).tolist() == [[2, 4, 5], [-1, -1, -1]]


def test_single_item():
    trie = Trie.of(ItemCodes(np.array([[7, 7, 7]])))
    assert trie.prefix_counts == (1, 1, 1)
    assert trie.walk(torch.tensor([3, 4, 5])).tolist() == [1, 2, 3]


def test_golden_prefix_counts(golden):
    codes = ItemCodes.from_strings(golden["codes"], "expected.json")
    assert golden["valid_prefixes"] == [16, 87, 286, 354]
    assert list(Trie.of(codes).prefix_counts) == golden["valid_prefixes"]
