"""front-greater, frequency, multi-target, igd and position: against slow formulas, and invariants of the weights."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import slow_families as slow
import torch
from family_batches import (
    LEVELS,
    assert_same,
    batch_of,
    catalogue_of,
    codes_of,
    evaluate,
    gradcheck,
    gradients,
    objective_of,
)
from gradients import STEP, assert_gradients
from helpers import slow_catalogue
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

# Weights that are exact in single precision at every depth of LEVELS: 1, 0.875, ... 0.375.
OPTIONS = {"front-greater": {}, "frequency": {"b": 0.9}, "igd": {"beta": 0.25}, "position": {"beta": 0.375}}


def slow_weights(kind, batch):
    """One list of T weights per example."""
    levels = len(batch.examples[0].target)
    if kind == "front-greater":
        one = slow.front_greater_weights(slow_catalogue.level_gains(batch.items, batch.embeddings))
        return [one] * len(batch.examples)
    if kind == "position":
        return [slow.position_weights(levels, 0.375)] * len(batch.examples)
    of_code = {
        "frequency": lambda target: slow.frequency_weights(target, batch.items, batch.trained, 0.9),
        "igd": lambda target: slow.igd_weights(target, batch.items, batch.trained, 0.25),
    }[kind]
    return [of_code(example.target) for example in batch.examples]


@pytest.mark.parametrize("eos", [True, False])
@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("kind", OPTIONS)
def test_value_and_gradient(kind, levels, eos):
    batch = batch_of(levels, levels, batch=1 if eos else 3, eos=eos)
    outcome = evaluate(objective_of(kind, eos=eos, **OPTIONS[kind]), batch.scores)
    weights = slow_weights(kind, batch)
    if levels == 6:
        assert len({weight for row in weights for weight in row}) > 1

    def loss(examples):
        return slow.weighted_cross_entropy(examples, weights, eos)

    assert outcome.loss.item() == pytest.approx(loss(batch.examples), abs=1e-10)
    assert outcome.terms["ce"].item() == pytest.approx(slow.cross_entropy(batch.examples, eos), abs=1e-10)
    assert_gradients(loss, batch.examples, batch.leaves, outcome)


@pytest.mark.parametrize("kind", OPTIONS)
def test_gradcheck(kind):
    assert gradcheck(objective_of(kind, **OPTIONS[kind]), batch_of(2))


@pytest.mark.parametrize("eos", [True, False])
@pytest.mark.parametrize("pace", [True, False])
@pytest.mark.parametrize("levels", [1, 3])
def test_multi_target_over_four_steps(levels, pace, eos):
    """Four batches, with the state passed on and the mixture changed in between as by an optimizer."""
    c, names = 0.3, ("ce", "front_greater", "frequency")
    objective = objective_of("multi-target", b=0.9, pace=pace, c=c, eos=eos)
    state = objective.initial_state(levels, torch.device("cpu"))
    assert isinstance(state["mixture"], nn.Parameter) and state["mixture"].tolist() == [0, 0, 0]
    state = {"mixture": state["mixture"].detach().double().requires_grad_(), "step": state["step"].double()}
    for step in range(4):
        batch = batch_of(step, levels, batch=2, eos=eos)
        outcome = objective(batch.scores, state)
        ones = [[1.0] * levels] * 2
        weights = [ones, slow_weights("front-greater", batch), slow_weights("frequency", batch)]
        a = state["mixture"].tolist()

        def loss(examples, a=a, weights=weights, step=step):
            losses = [slow.weighted_cross_entropy(examples, w, eos) for w in weights]
            return sum(m * one for m, one in zip(slow.shares(a, pace, c, step), losses, strict=True))

        assert outcome.loss.item() == pytest.approx(loss(batch.examples), abs=1e-10)
        for name, w, m in zip(names, weights, slow.shares(a, pace, c, step), strict=True):
            expected = slow.weighted_cross_entropy(batch.examples, w, eos)
            assert outcome.terms[name].item() == pytest.approx(expected, abs=1e-10)
            assert outcome.terms[f"share_{name}"].item() == pytest.approx(m, abs=1e-10)
        assert_gradients(loss, batch.examples, batch.leaves, outcome)
        moved = [[[*a[:k], a[k] + sign * STEP, *a[k + 1 :]] for sign in (1, -1)] for k in range(3)]
        numeric = [(loss(batch.examples, up) - loss(batch.examples, down)) / (2 * STEP) for up, down in moved]
        np.testing.assert_allclose(state["mixture"].grad.numpy(), numeric, atol=1e-9)
        if pace and step == 0:
            assert outcome.terms["share_frequency"] == 0 and state["mixture"].grad[2] == 0
        assert outcome.state["step"].item() == step + 1 and outcome.state["mixture"] is state["mixture"]
        # With one level front-greater equals ce; otherwise the mixture must change.
        assert levels == 1 or state["mixture"].grad.abs().max() > 0
        state = {**outcome.state, "mixture": torch.tensor([0.4 * step, -0.7, 0.3 - step]).double().requires_grad_()}


@pytest.mark.parametrize("pace", [True, False])
def test_multi_target_gradcheck_in_the_mixture_too(pace):
    batch = batch_of(2)
    objective = objective_of("multi-target", pace=pace, c=0.1)
    state = {"step": torch.tensor(5.0).double()}
    assert gradcheck(objective, batch, {**state, "mixture": torch.tensor([0.1, -0.2, 0.3]).double()})
    a = torch.tensor([0.1, -0.2, 0.3]).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda value: objective(batch.scores, {**state, "mixture": value}).loss, (a,))


def test_the_paces_hand_over_from_the_front_to_the_rare():
    """At first half ce and half front-greater, at the end only frequency."""
    batch = batch_of(3)
    objective = objective_of("multi-target", b=0.9, c=2e-5)
    state = objective.initial_state(3, torch.device("cpu"))
    kinds = ("ce", "front-greater", "frequency")
    losses = [evaluate(objective_of(kind, **OPTIONS.get(kind, {})), batch.scores).loss for kind in kinds]
    first = objective(batch.scores, state).loss
    torch.testing.assert_close(first, (losses[0] + losses[1]) / 2)
    last = objective(batch.scores, {**state, "step": torch.tensor(1e7)}).loss
    torch.testing.assert_close(last, losses[2])


def test_the_share_of_frequency_is_not_lost_to_rounding_in_the_first_steps():
    """In single precision 1 - exp(-2e-5) has three correct digits; expm1 has all."""
    objective = objective_of("multi-target", c=2e-5)
    state = objective.initial_state(3, torch.device("cpu"))
    scores = batch_of(3, dtype=torch.float32).scores
    share = objective(scores, {**state, "step": torch.tensor(1.0)}).terms["share_frequency"]
    late = -math.expm1(-2e-5)
    assert share.item() == pytest.approx(late / (2 * math.exp(-2e-5) + late), rel=1e-5)


def test_a_large_a_takes_its_loss_out_of_the_mixture():
    batch = batch_of(4)
    objective = objective_of("multi-target", pace=False)
    state = objective.initial_state(3, torch.device("cpu"))
    for k, kind in enumerate(("ce", "front-greater", "frequency")):
        mixture = torch.full((3,), 100.0)
        mixture[k] = 0
        expected = evaluate(objective_of(kind), batch.scores).loss
        torch.testing.assert_close(objective(batch.scores, {**state, "mixture": mixture}).loss, expected)


@pytest.mark.parametrize("eos", [True, False])
@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize(
    ("kind", "options"), [("position", {"beta": 1}), ("igd", {"beta": 1}), ("frequency", {"b": 0})]
)
def test_equal_weights_are_cross_entropy(kind, options, levels, eos):
    batch = batch_of(5, levels, eos=eos)
    weighted = evaluate(objective_of(kind, eos=eos, **options), batch.scores).loss
    assert_same(weighted, evaluate(objective_of("ce", eos=eos), batch.scores).loss, batch.leaves)


@given(seed=st.integers(0, 10**6), levels=st.sampled_from(LEVELS), b=st.sampled_from([0.0, 0.5, 0.99, 0.999]))
@settings(max_examples=25)
def test_weights_of_a_code_sum_to_its_length(seed, levels, b):
    batch = batch_of(seed, levels)
    frequency = objective_of("frequency", b=b).token_weights(batch.scores)
    assert frequency.sum(dim=1).tolist() == pytest.approx([levels] * 3, abs=1e-10)
    front = objective_of("front-greater").token_weights(batch.scores)
    assert front.sum().item() == pytest.approx(levels, abs=1e-10)
    assert (frequency > 0).all() and (front >= 0).all()


def test_rare_tokens_weigh_more_and_unseen_ones_as_if_seen_once():
    """Second tokens with 0, 1 and 6 of 7 targets, after a first token that all share."""
    batch = batch_of(0, codes=codes_of([[0, 0], [0, 1], [0, 2]]))
    codes = torch.tensor([[3, 4], [3, 5], [3, 6]])
    counts = torch.tensor([0, 0, 0, 7, 0, 1, 6])
    scores = replace(batch.scores, targets=codes, statistics=SimpleNamespace(token_counts=counts))
    weights = objective_of("frequency", b=0.5).token_weights(scores)
    rare, common, first = 1.0, 0.5 / (1 - 0.5**6), 0.5 / (1 - 0.5**7)
    expected = [[2 * w0 / (w0 + w1), 2 * w1 / (w0 + w1)] for w0, w1 in ((first, rare), (first, rare), (first, common))]
    np.testing.assert_allclose(weights, expected, rtol=1e-12)


def test_levels_that_gain_nothing_or_take_items_apart_get_no_weight():
    batch = batch_of(0)
    known = SimpleNamespace(level_gains=torch.tensor([0.5, -0.3, 0.0]).double())
    weights = objective_of("front-greater").token_weights(replace(batch.scores, statistics=known))
    assert weights.tolist() == pytest.approx([3, 0, 0], abs=1e-12)
    nothing = SimpleNamespace(level_gains=torch.zeros(3).double())
    loss = evaluate(objective_of("front-greater"), replace(batch.scores, statistics=nothing)).loss
    assert_same(loss, evaluate(objective_of("ce"), batch.scores).loss, batch.leaves)


@pytest.mark.parametrize("seed", range(4))
def test_igd_weighs_down_exactly_the_tokens_that_rule_out_no_expected_code(seed):
    """Before the token one code with a training target is left, or all that are left have the token."""
    batch = batch_of(seed, batch=14)
    weights = objective_of("igd", beta=0.0).token_weights(batch.scores)
    for row, example in zip(weights.tolist(), batch.examples, strict=True):
        for t, weight in enumerate(row):
            prefix = tuple(example.target[:t])
            left = slow_catalogue.targets_below(batch.items, batch.trained, prefix)
            after = slow_catalogue.targets_below(batch.items, batch.trained, (*prefix, example.target[t]))
            assert weight == float(len(left) > 1 and len(after) < len(left))
    assert set(weights.flatten().tolist()) == {0, 1}


def test_igd_weighs_a_token_in_full_that_leaves_more_to_know_than_before():
    """Two thirds of the targets on one code, the rest on four: the four's first token takes 1.58 bits to 2."""
    codes = codes_of([[0, 0]] + [[1, i] for i in range(4)])
    batch = batch_of(0, batch=8, codes=codes)
    known = catalogue_of(codes, np.array([0] * 8 + [1, 2, 3, 4]), np.zeros((5, 1)))
    assert (known.information_gain < 0).any()
    weights = objective_of("igd", beta=0.0).token_weights(replace(batch.scores, statistics=known))
    first = batch.scores.targets[:, 0].tolist()
    assert set(first) == {3, 4}
    # The single code is determined by its first token, the four by their second.
    assert weights.tolist() == [[1, float(token == 4)] for token in first]


def test_igd_without_weight_on_settled_tokens_does_not_train_them():
    batch = batch_of(1, batch=8, eos=False)
    objective = objective_of("igd", beta=0.0, eos=False)
    loss = evaluate(objective, batch.scores).loss
    (gradient,) = torch.autograd.grad(loss, batch.leaves["logits"])
    assert ((gradient != 0).any(-1) == (objective.token_weights(batch.scores) > 0)).all()


def test_position_weights_fall_linearly_to_the_last_level():
    for levels, expected in ((1, [1]), (2, [1, 0.2]), (3, [1, 0.6, 0.2]), (5, [1, 0.8, 0.6, 0.4, 0.2])):
        weights = objective_of("position", beta=0.2).token_weights(batch_of(0, levels).scores)
        assert weights.tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("kind", OPTIONS)
def test_no_weight_falls_on_the_eos_step(kind):
    """Its gradient is that of plain cross-entropy."""
    batch = batch_of(7)
    eos = {"eos_logits": batch.leaves["eos_logits"]}
    losses = [evaluate(objective_of(k, **OPTIONS.get(k, {})), batch.scores).loss for k in (kind, "ce")]
    torch.testing.assert_close(*(gradients(loss, eos) for loss in losses))


def test_frequency_holds_in_single_precision_next_to_one():
    """For b -> 1 the weights go to 1 / n; in single precision 1 - b^n would be lost to rounding."""
    scores = batch_of(0, dtype=torch.float32).scores
    weights = objective_of("frequency", b=0.99999998).token_weights(scores)
    seen = 1 / scores.statistics.token_counts.clamp(min=1)[scores.targets]
    torch.testing.assert_close(weights, 3 * seen / seen.sum(dim=1, keepdim=True), atol=1e-5, rtol=0)
