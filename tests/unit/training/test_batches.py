"""Batches of examples against plain lists."""

from collections import Counter
from itertools import chain

import numpy as np
import torch
from helpers.models import histories_of, random_codes
from hypothesis import given, settings
from hypothesis import strategies as st

from apao.codes.itemcodes import ItemCodes
from apao.codes.trie import Trie
from apao.training.batches import Examples, ExampleSampler

CPU = torch.device("cpu")
# Every item has its own code, so that the items of a batch are known from its tokens.
CODES = ItemCodes(np.array([[i // 4, i % 4] for i in range(12)]))
TOKENS = CODES.tokens.tolist()

users_lists = st.lists(st.lists(st.integers(0, 11), min_size=3, max_size=9), min_size=1, max_size=7)


def sampler_of(rows, max_history=4, negatives=0, budget=60):
    histories = histories_of(rows)
    return ExampleSampler(Examples(histories, CODES, max_history, Trie.of(CODES)), histories, negatives, budget)


def expected_examples(rows, max_history):
    """(history tokens, target tokens) of every training example."""
    return [
        (tuple(t for item in row[max(0, i - max_history) : i] for t in TOKENS[item]), tuple(TOKENS[row[i]]))
        for row in rows
        for i in range(1, len(row) - 2)
    ]


def examples_in(batch):
    """The same, read from a batch; asserts that padding is only at the end of a history."""
    found = []
    for history, target in zip(batch.history.tolist(), batch.targets.tolist(), strict=True):
        kept = [token for token in history if token]
        assert history == kept + [0] * (len(history) - len(kept))
        found.append((tuple(kept), tuple(target)))
    return found


@given(users_lists, st.integers(1, 6))
def test_one_batch_holds_the_examples_in_order(rows, max_history):
    sampler = sampler_of(rows, max_history)
    expected = expected_examples(rows, max_history)
    assert sampler.examples == len(expected)
    if expected:
        batch = sampler.source.batch(sampler.users, sampler.positions)
        assert examples_in(batch) == expected
        assert batch.history.shape[1] == max(len(history) for history, _ in expected)


@given(users_lists, st.integers(1, 6), st.integers(0, 3), st.integers(1, 80))
@settings(max_examples=60)
def test_micro_batches_hold_every_example_once_within_the_budget(rows, max_history, negatives, budget):
    sampler = sampler_of(rows, max_history, negatives, budget)
    count = sampler.examples
    drawn = torch.arange(count * negatives).view(count, negatives) % len(CODES.distinct) if negatives else None
    parts = list(sampler.source.micro_batches(sampler.users, sampler.positions, drawn, budget))
    found = [example for part in parts for example in examples_in(part)]
    expected = expected_examples(rows, max_history)
    assert Counter(found) == Counter(expected)
    for part in parts:
        size = part.history.numel() + part.targets.numel()
        if negatives:
            assert part.negatives.shape == (len(part), negatives, 2)
            size += part.negatives.numel()
        else:
            assert part.negatives is None
        assert size <= budget or len(part) == 1
    if negatives and count:
        # Negatives stay with the example they were drawn for.
        tokens = torch.as_tensor(CODES.distinct_tokens)[drawn].flatten(1).tolist()
        pairs = [
            (example, tuple(row))
            for part in parts
            for example, row in zip(examples_in(part), part.negatives.flatten(1).tolist(), strict=True)
        ]
        assert Counter(pairs) == Counter((e, tuple(row)) for e, row in zip(expected, tokens, strict=True))


@given(users_lists.filter(lambda rows: max(map(len, rows)) > 3), st.integers(1, 9), st.integers(0, 100))
def test_an_epoch_draws_every_example_once(rows, batch_size, seed):
    sampler = sampler_of(rows)
    batches = list(sampler.epoch(sampler.examples, batch_size, torch.Generator().manual_seed(seed)))
    found = [[example for part in batch.parts for example in examples_in(part)] for batch in batches]
    assert Counter(chain.from_iterable(found)) == Counter(expected_examples(rows, 4))
    assert [batch.examples for batch in batches] == [len(each) for each in found]
    assert all(len(each) == batch_size for each in found[:-1])


def many_users(count=40):
    return [[(user + i) % 12 for i in range(8)] for user in range(count)]


@given(users_lists, st.integers(1, 6), st.integers(1, 200))
def test_batches_whose_shapes_repeat_keep_to_the_budget_and_the_longest_history(rows, max_history, budget):
    sampler = sampler_of(rows, max_history)
    for part in sampler.source.micro_batches(sampler.users, sampler.positions, None, budget, repeating=True):
        assert part.history.shape[1] <= max_history * CODES.levels
        assert part.history.numel() + part.targets.numel() <= budget or len(part) == 1


def test_batches_whose_shapes_repeat_have_few_rows(monkeypatch):
    monkeypatch.setattr("apao.training.batches.REPEATED_ROWS", 4)
    sampler = sampler_of(many_users(4))
    parts = sampler.source.micro_batches(sampler.users, sampler.positions, None, 10**6, repeating=True)
    assert max(map(len, parts)) == 4


def drawn_in(sampler, wanted, generator):
    return [e for batch in sampler.epoch(wanted, 16, generator) for part in batch.parts for e in examples_in(part)]


def test_epochs_differ_and_follow_the_generator():
    sampler = sampler_of(many_users())
    generator = torch.Generator().manual_seed(3)
    first, second = (drawn_in(sampler, sampler.examples, generator) for _ in range(2))
    assert first != second and Counter(first) == Counter(second)
    assert drawn_in(sampler, sampler.examples, torch.Generator().manual_seed(3)) == first


def test_a_smaller_epoch_is_a_fresh_sample_without_repeats():
    rows = [[(user + i * (1 + user // 12)) % 12 for i in range(5)] for user in range(24)]
    sampler = sampler_of(rows)
    generator = torch.Generator().manual_seed(0)
    allowed = Counter(expected_examples(rows, 4))
    epochs = [Counter(drawn_in(sampler, 20, generator)) for _ in range(3)]
    for epoch in epochs:
        assert epoch.total() == 20 and epoch <= allowed
    assert epochs[0] != epochs[1] != epochs[2]


def test_negatives_are_uniform_over_distinct_codes_and_reproducible():
    codes = random_codes(50, 2, 3)  # 9 codes at most, shared by very different numbers of items.
    source = Examples(histories_of([[0, 1, 2, 3]]), codes, 4, Trie.of(codes))
    kinds = len(codes.distinct)
    drawn = source.sample_negatives(500, 40, torch.Generator().manual_seed(1))
    counts = np.bincount(drawn.flatten().numpy(), minlength=kinds)
    expected = drawn.numel() / kinds
    # Chi-square with kinds - 1 degrees of freedom: mean kinds - 1, variance 2 (kinds - 1).
    chi = ((counts - expected) ** 2 / expected).sum()
    assert chi < kinds - 1 + 5 * (2 * (kinds - 1)) ** 0.5
    assert torch.equal(drawn, source.sample_negatives(500, 40, torch.Generator().manual_seed(1)))
    assert not torch.equal(drawn, source.sample_negatives(500, 40, torch.Generator().manual_seed(2)))
    assert torch.equal(source.codes_of(drawn)[0], torch.as_tensor(codes.distinct_tokens)[drawn])


def test_negatives_are_drawn_anew_each_epoch():
    sampler = sampler_of(many_users(4), negatives=3)
    generator = torch.Generator().manual_seed(0)
    epochs = [
        torch.cat([part.negatives for batch in sampler.epoch(99, 99, generator) for part in batch.parts])
        for _ in range(2)
    ]
    assert not torch.equal(*epochs)


def test_no_history_is_looked_up_across_users():
    """The first example of a user has one item of history and none of the user before."""
    sampler = sampler_of([[1, 2, 3, 4], [5, 6, 7, 8]], max_history=20)
    batch = sampler.source.batch(np.array([1]), np.array([1]))
    assert batch.history.tolist() == [TOKENS[5]] and batch.targets.tolist() == [TOKENS[6]]
