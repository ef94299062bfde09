"""Properties of the other objectives that hold for any scores."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from family_batches import (
    LEVELS,
    PREFERENCES,
    VARIANTS,
    assert_same,
    batch_of,
    codes_of,
    evaluate,
    gradients,
    objective_of,
)
from hypothesis import given, settings
from hypothesis import strategies as st

# One item, two items, two items that share a code, two that differ in the first token.
CATALOGUES = [[[0, 0]], [[0, 0], [0, 1]], [[1, 1], [1, 1]], [[0, 0], [1, 0]]]


@pytest.mark.parametrize(("kind", "options"), VARIANTS)
def test_a_constant_added_to_all_logits_of_a_step_does_not_matter(kind, options):
    batch = batch_of(1, reference=kind in PREFERENCES)

    @given(st.lists(st.floats(-50, 50), min_size=7, max_size=7))
    @settings(max_examples=8)
    def check(shifts):
        shift = torch.tensor(shifts, dtype=torch.float64)

        def moved(scores, one):
            return replace(scores, logits=scores.logits + one[:, None], eos_logits=scores.eos_logits + shifts[6])

        scores = moved(batch.scores, shift[:3])
        if scores.reference is not None:
            scores = replace(scores, reference=moved(scores.reference, shift[3:6]))
        objective = objective_of(kind, **options)
        one, other = evaluate(objective, batch.scores).loss, evaluate(objective, scores).loss
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-10)
        found = [gradients(loss, batch.leaves) for loss in (one, other)]
        torch.testing.assert_close(*found, atol=1e-10, rtol=1e-10)

    check()


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize(("kind", "options"), VARIANTS)
def test_any_depth_one_example_and_one_negative(kind, options, levels):
    """The loss is the mean of the losses of single examples, except for BEAR's release, which normalises per batch."""
    batch = batch_of(2, levels, batch=4, negatives=1, reference=kind in PREFERENCES)
    objective = objective_of(kind, **options)
    whole = evaluate(objective, batch.scores).loss
    rows = [evaluate(objective, row_of(batch.scores, i)).loss for i in range(4)]
    assert whole.isfinite() and all(one.isfinite() for one in rows)
    if options.get("form") != "release":
        assert_same(whole, torch.stack(rows).mean(), batch.leaves)


def row_of(scores, i):
    names = ("logits", "targets", "prefixes", "eos_logits", "negative_logp", "negative_prefixes")
    rows = {name: getattr(scores, name)[i : i + 1] for name in names}
    return replace(scores, reference=None if scores.reference is None else row_of(scores.reference, i), **rows)


@pytest.mark.parametrize("table", CATALOGUES)
@pytest.mark.parametrize(("kind", "options"), VARIANTS)
def test_tiny_catalogues_and_extreme_logits_stay_finite(kind, options, table):
    """Ten steps in single precision, every other one with logits of +-1e4 and negatives down to -2e4."""
    objective = objective_of(kind, **options)
    state = objective.initial_state(2, torch.device("cpu"))
    for step in range(10):
        rng = np.random.default_rng(step)
        batch = batch_of(step, batch=2, reference=kind in PREFERENCES, codes=codes_of(table), dtype=torch.float32)
        scores = batch.scores
        if step % 2:
            scores = extreme(scores, rng)
            if scores.reference is not None:
                scores = replace(scores, reference=extreme(scores.reference, rng))
        leaves = {
            name: getattr(scores, name).detach().clone().requires_grad_()
            for name in ("logits", "eos_logits", "negative_logp")
        }
        loss, terms, following = objective(replace(scores, **leaves), state)
        assert loss.dtype == torch.float32 and loss.isfinite()
        assert all(value.isfinite() for value in terms.values())
        learned = {name: value for name, value in state.items() if value.requires_grad}
        assert gradients(loss, {**leaves, **learned}).isfinite().all()
        state = following


def extreme(scores, rng):
    """Logits of +-1e4, so that log-probabilities are 0 or near -2e4, and negatives down to -2e4."""

    def drawn(like):
        return torch.tensor(1e4 * rng.choice([-1.0, 1.0], like.shape), dtype=torch.float32)

    negatives = torch.tensor(-2e4 * rng.uniform(0, 1, scores.negative_logp.shape), dtype=torch.float32)
    negatives[:, 0], negatives[:, 1] = -2e4, 0.0
    return replace(scores, logits=drawn(scores.logits), eos_logits=drawn(scores.eos_logits), negative_logp=negatives)


@pytest.mark.parametrize(("kind", "options"), VARIANTS)
def test_single_precision_is_close_to_double(kind, options):
    found = []
    for dtype in (torch.float32, torch.float64):
        batch = batch_of(3, levels=3, reference=kind in PREFERENCES, dtype=dtype)
        loss = evaluate(objective_of(kind, **options), batch.scores).loss
        found.append((loss.double(), gradients(loss, batch.leaves).double()))
    torch.testing.assert_close(*found, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("kind", "options"), VARIANTS)
def test_terms_carry_no_gradient_and_only_preferences_look_at_a_reference(kind, options):
    batch = batch_of(4, reference=True)
    objective = objective_of(kind, **options)
    outcome = evaluate(objective, batch.scores)
    assert outcome.loss.requires_grad and not any(value.requires_grad for value in outcome.terms.values())
    without = evaluate(objective, replace(batch.scores, reference=None)).loss
    assert (without.item() == outcome.loss.item()) == (kind not in PREFERENCES)
