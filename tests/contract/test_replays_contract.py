"""Recorded passes: for every registered objective, steps from recorded passes equal steps without.

A CPU has no graphs. Here a recorded pass is the same work, done again into the tensors that were there when it was
recorded; what the GPU makes of it is in ``test_gpu_contract``.
"""

from dataclasses import fields

import pytest
import torch
from helpers.models import BOTH, random_codes, random_histories, run_params

from apao.training.loop import Sums, Training
from apao.training.replays import Replays

CODES = random_codes(40, 3, 4)
HISTORIES = random_histories([5, 9, 4, 12, 3, 7, 8, 6] * 4, CODES.items)


def training_of(backbone, objective, **sizes):
    embeddings = torch.randn(CODES.items, 8, generator=torch.Generator().manual_seed(0)).numpy()
    params = run_params(backbone, objective, batch_size=16, sizes=sizes)
    training = Training("toy/run", params, HISTORIES, CODES, torch.device("cpu"), embeddings=embeddings)
    training.sampler.repeating = True
    training.backbone.train()
    return training


class Recorder:
    """Records as a GPU does: what a recording does is undone, and a repeat writes into the tensors of the recording."""

    def __init__(self, training):
        self.training, self.recorded, self.repeated = training, 0, 0

    def __call__(self, work):
        before, seed = [value.grad.clone() for value in self.training.parameters], torch.get_rng_state()
        outcome = work()
        for value, gradient in zip(self.training.parameters, before, strict=True):
            value.grad.copy_(gradient)
        torch.set_rng_state(seed)
        self.recorded += 1

        def repeat():
            again = work()
            for old, new in zip(_tensors_of(outcome), _tensors_of(again), strict=True):
                old.detach().copy_(new.detach())
            self.repeated += 1

        return repeat, outcome


def _tensors_of(outcome):
    learned = torch.nn.Parameter
    state = [value for value in outcome.state.values() if not isinstance(value, learned)]
    return [outcome.loss, *outcome.terms.values(), *state]


def recorded(training):
    """The training with all its passes recorded, as on a GPU."""
    for value in training.parameters:
        value.grad = torch.zeros_like(value)
    recorder = Recorder(training)
    training.recording, training.learn = True, Replays(training._learn, recorder)
    return training, recorder


@pytest.mark.parametrize("backbone", BOTH)
def test_recorded_steps_equal_plain_ones(objective, backbone):
    plain, (other, recorder) = training_of(backbone, objective), recorded(training_of(backbone, objective))
    sums = []
    for training in (plain, other):
        sums.append(Sums())
        for _ in range(2):
            for batch in training.sampler.epoch(training.epoch_examples, 16, training.generator):
                training.step(batch, sums[-1])
    assert 0 < recorder.recorded < recorder.repeated
    assert sums[1].means("toy") == sums[0].means("toy")
    for (name, one), two in zip(plain.backbone.state_dict().items(), other.backbone.state_dict().values(), strict=True):
        assert torch.equal(one, two), name
    for name, value in plain.state.items():
        assert torch.equal(other.state[name], value), name


@pytest.mark.parametrize("backbone", ["gru4rec", "llama", "sasrec"])
@pytest.mark.parametrize("type", ["ce", "msl"])
def test_padded_packed_sequences_give_the_same_steps(backbone, type):
    """Rows of padding are read, but no example refers to them."""
    found, shapes = [], set()
    for padded in (False, True):
        # Without dropout: the masks of padded sequences are others.
        training = training_of(backbone, {"type": type}, pack=True, dropout=0.0)
        training.sampler.repeating = padded
        if padded:

            def read(tokens, backbone=training.backbone):
                shapes.add(tuple(tokens.shape))
                return backbone.read(tokens, tokens.new_zeros(len(tokens), 1), 0)[0]

            training.read = read
        sums, batches = Sums(), training.sampler.epoch(training.epoch_examples, 16, training.generator)
        training.step(next(batches), sums)
        gradients = [value.grad.clone() for value in training.parameters]
        for batch in batches:
            training.step(batch, sums)
        found.append((sums.means("toy"), gradients))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-5)
    torch.testing.assert_close(found[1][1], found[0][1], atol=1e-7, rtol=1e-4)
    assert shapes == {(32, (training.sampler.source.max_history + 1) * CODES.levels)}


def test_the_shapes_of_micro_batches_repeat():
    """Else every step would be recorded, and none replayed."""
    training = training_of("tiger", {"type": "apao-pairwise", "negatives": 5})
    shapes, parts = set(), 0
    for _ in range(20):
        for batch in training.sampler.epoch(training.epoch_examples, 16, training.generator):
            for part in batch.parts:
                shapes.add(tuple(tuple(getattr(part, field.name).shape) for field in fields(part)))
                parts += 1
                assert len(part) & (len(part) - 1) == 0 or batch.examples % 16 != 0
    assert parts > 100
    assert len(shapes) < 12
    assert {shape[0][1] // CODES.levels % 4 for shape in shapes} == {0}


def test_recorded_batches_hold_every_example_once():
    training = training_of("tiger", {"type": "ce"})
    parts = list(training.sampler.parts(training.sampler.users, training.sampler.positions, training.generator))
    assert sum(map(len, parts)) == training.sampler.examples
    plain = training.sampler.source.batch(training.sampler.users, training.sampler.positions)
    rows = [
        (*history[history > 0].tolist(), *target.tolist())
        for part in parts
        for history, target in zip(part.history, part.targets, strict=True)
    ]
    wanted = [
        (*history[history > 0].tolist(), *target.tolist())
        for history, target in zip(plain.history, plain.targets, strict=True)
    ]
    assert sorted(rows) == sorted(wanted)
