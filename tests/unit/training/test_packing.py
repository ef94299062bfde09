"""Packed rows against the same examples one by one."""

from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from helpers.models import backbone_of, histories_of, random_codes, random_histories
from hypothesis import given, settings
from hypothesis import strategies as st

from apao.codes.trie import Trie
from apao.objectives.base import OBJECTIVES
from apao.training.batches import Batch, Examples, ExampleSampler
from apao.training.packing import PackedSampler, plan_rows
from apao.training.scoring import score_batch

CPU = torch.device("cpu")
PREFIX_COUNTS = (4, 9, 12)
lengths_lists = st.lists(st.integers(3, 14), min_size=1, max_size=6)


@given(lengths_lists, st.integers(1, 8))
def test_rows_hold_every_example_once_and_enough_history(lengths, max_history):
    histories = random_histories(lengths, 5)
    rows = plan_rows(histories, max_history)
    offsets = histories.offsets.tolist()
    found = Counter()
    for first, length, examples in zip(*(x.tolist() for x in (rows.first, rows.length, rows.examples)), strict=True):
        user = next(u for u in range(len(lengths)) if offsets[u] <= first < offsets[u + 1])
        assert 1 <= examples < length <= max_history + 1
        for place in range(first + length - examples, first + length):
            position = place - offsets[user]
            # The items before the target in the row are exactly the cut history.
            assert place - first == min(position, max_history)
            found[user, position] += 1
    users, positions = histories.training_examples()
    assert found == Counter(zip(users.tolist(), positions.tolist(), strict=True))


def sampler_of(lengths, max_history, negatives, budget, levels=3):
    codes = random_codes(20, levels, 4)
    histories = random_histories(lengths, codes.items, seed=1)
    examples = Examples(histories, codes, max_history, Trie.of(codes))
    return PackedSampler(examples, histories, negatives, budget), codes, histories


@given(
    lengths_lists.filter(lambda lengths: max(lengths) > 3),
    st.integers(1, 6),
    st.integers(1, 12),
    st.integers(1, 40),
    st.integers(1, 200),
)
@settings(max_examples=60)
def test_an_epoch_draws_whole_rows_until_enough(lengths, max_history, batch_size, wanted, budget):
    sampler, codes, histories = sampler_of(lengths, max_history, 0, budget)
    batches = [
        (batch.examples, list(batch.parts))
        for batch in sampler.epoch(wanted, batch_size, torch.Generator().manual_seed(0))
    ]
    total = sum(count for count, _ in batches)
    assert min(wanted, sampler.examples) <= total < wanted + max_history
    for count, parts in batches:
        assert sum(len(part) for part in parts) == count
        for part in parts:
            assert part.tokens.numel() <= budget or len(part.tokens) == 1
    assert all(count >= batch_size for count, _ in batches[:-1])
    if wanted >= sampler.examples:
        targets = Counter(tuple(row) for _, parts in batches for part in parts for row in part.targets.tolist())
        users, positions = histories.training_examples()
        items = histories.items[histories.offsets[users] + positions]
        assert targets == Counter(tuple(codes.tokens[item].tolist()) for item in items)


@given(
    lengths=st.lists(st.integers(3, 12), min_size=1, max_size=12),
    max_history=st.integers(1, 6),
    negatives=st.integers(1, 5),
    budget=st.integers(10, 400),
)
def test_a_micro_batch_keeps_to_its_tokens_with_negatives(lengths, max_history, negatives, budget):
    """Rows whose history is cut are as long as others and have one example: all are padded to the most examples."""
    sampler, *_ = sampler_of(lengths, max_history, negatives, budget)
    for effective in sampler.epoch(10**6, 10**6, torch.Generator().manual_seed(0)):
        for part in effective.parts:
            assert part.tokens.numel() + part.negatives.numel() <= budget or len(part.tokens) == 1


def test_a_micro_batch_may_have_as_many_tokens_as_the_budget():
    """Three rows of three items, of three tokens each."""
    sampler, *_ = sampler_of([5, 5, 5], 4, 0, 27)
    (batch,) = sampler.epoch(10**6, 10**6, torch.Generator().manual_seed(0))
    assert [part.tokens.numel() for part in batch.parts] == [27]


def test_only_batches_without_negatives_have_shapes_that_repeat():
    codes, histories = random_codes(20, 3, 4), random_histories([5, 5], 20)
    examples = Examples(histories, codes, 4, Trie.of(codes))
    assert PackedSampler(examples, histories, 0, 100, repeating=True).repeating
    sampler = PackedSampler(examples, histories, 3, 100, repeating=True)
    for batch in sampler.epoch(10, 10, torch.Generator().manual_seed(0)):
        assert all(len(part.tokens) == len(part.starts) for part in batch.parts)


def alone(packed, row, slot, index):
    """An example of a packed batch as a separate batch."""
    history = packed.tokens[row, : packed.starts[row, slot] + 1]
    own = slice(index, index + 1)
    negatives = ids = None
    if packed.negatives is not None:
        negatives, ids = packed.negatives[row, slot][None], packed.negative_prefixes[row, slot][None]
    return Batch(history[None], packed.targets[own], packed.prefixes[own], negatives, ids)


@pytest.mark.parametrize("levels", [1, 3])
@pytest.mark.parametrize("max_history", [4, 50])
@pytest.mark.parametrize(
    "objective",
    [
        {"type": "ce"},
        {"type": "ce", "eos": False},
        {"type": "apao-pairwise", "negatives": 3, "weights": "uniform"},
        {"type": "apao-pairwise", "negatives": 1, "weights": "uniform", "eos": False},
    ],
    ids=lambda objective: "-".join(map(str, objective.values())),
)
def test_scores_and_gradients_are_those_of_the_examples_alone(objective, max_history, levels):
    """Histories of 1 to 7 items, cut and uncut, in rows of different lengths, several micro-batches."""
    objective = OBJECTIVES[objective["type"]](**objective)
    negatives = objective.needs().negatives
    sampler, codes, _ = sampler_of([5, 3, 10, 4], max_history, negatives, 100, levels)
    backbone = backbone_of("llama", len(codes.vocabulary), max_history=max_history, pack=True).train()
    catalogue = SimpleNamespace(prefix_counts=torch.tensor(PREFIX_COUNTS[:levels]))
    seen = 0
    for effective in sampler.epoch(10**6, 9, torch.Generator().manual_seed(0)):
        for packed in effective.parts:
            rows, slots = packed.row, packed.slot
            singles = [
                score_batch(backbone, alone(packed, row, slot, i), objective.eos, catalogue)
                for i, (row, slot) in enumerate(zip(rows, slots, strict=True))
            ]
            together = score_batch(backbone, packed, objective.eos, catalogue)
            assert together.targets.shape == (len(packed), levels)
            for name in ("target_logp", "eos_logp", "negative_logp", "prefixes", "negative_prefixes"):
                found = getattr(together, name)
                if found is not None:
                    torch.testing.assert_close(found, torch.cat([getattr(s, name) for s in singles]), atol=1e-5, rtol=0)
            expected = torch.stack([objective(single, {}).loss for single in singles]).mean()
            loss = objective(together, {}).loss
            torch.testing.assert_close(loss, expected, atol=1e-5, rtol=0)
            found, wanted = (torch.autograd.grad(value, list(backbone.parameters())) for value in (loss, expected))
            torch.testing.assert_close(found, wanted, atol=2e-5, rtol=1e-3)
            seen += len(packed)
    assert seen == sampler.examples


def test_all_examples_of_both_samplers_agree():
    """The packed epoch and the plain one have the same (history, target) pairs."""
    codes = random_codes(20, 2, 5)
    histories = histories_of([[3, 1, 4, 1, 5, 9, 2, 6], [5, 3, 5, 8], [9, 7, 9, 3, 2]])
    examples = Examples(histories, codes, 3, Trie.of(codes))
    plain, packed = Counter(), Counter()
    sampler = ExampleSampler(examples, histories, 0, 10**6)
    for part in sampler.parts(sampler.users, sampler.positions, torch.Generator()):
        for history, target in zip(part.history.tolist(), part.targets.tolist(), strict=True):
            plain[tuple(token for token in history if token), tuple(target)] += 1
    for batch in PackedSampler(examples, histories, 0, 50).epoch(99, 4, torch.Generator()):
        for part in batch.parts:
            for i, (row, slot) in enumerate(zip(part.row, part.slot, strict=True)):
                single = alone(part, row, slot, i)
                packed[tuple(single.history[0].tolist()), tuple(single.targets[0].tolist())] += 1
    assert packed == plain
