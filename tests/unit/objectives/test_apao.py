"""Properties of the prefix losses that hold for any scores."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from family_batches import evaluate, objective_of
from helpers.models import prefix_ids
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from apao.objectives.apao import CARRIED, FORWARD_EXAMPLES, first_occurrences, log_prefix_weights
from apao.objectives.base import Scores

WEIGHTINGS = ("uniform", "release", "eq17", "algorithm1")
FORMS = ("plain", "release")
KINDS = ("ce", "apao-pointwise", "apao-pairwise")
VOCABULARY = 8


def scores_of(seed, batch=3, levels=4, negatives=6, size=1.0, clusters=3):
    """Random scores over a catalogue with few codes, so that prefixes repeat."""
    rng = np.random.default_rng(seed)
    tokens = torch.tensor(3 + rng.integers(0, clusters, (batch, 1 + negatives, levels)))
    (ids,) = prefix_ids(tokens)
    return Scores(
        logits=torch.tensor(rng.normal(0, size, (batch, levels, VOCABULARY)), dtype=torch.float32),
        targets=tokens[:, 0],
        prefixes=ids[:, 0],
        statistics=SimpleNamespace(prefix_counts=torch.tensor([clusters**m for m in range(1, levels + 1)])),
        eos_logits=torch.tensor(rng.normal(0, size, (batch, VOCABULARY)), dtype=torch.float32),
        negative_prefixes=ids[:, 1:],
        negative_logp=torch.tensor(-size * rng.exponential(1, (batch, negatives, levels)), dtype=torch.float32),
    )


def consistent(scores):
    """Scores in which equal prefixes have equal log-probabilities, as from any model.

    The log-probability of a token is a function of the prefix that ends with it.
    """
    table = {}
    ids = torch.cat([scores.prefixes[:, None], scores.negative_prefixes], dim=1)
    logp = torch.cat([scores.target_logp[:, None], scores.negative_logp], dim=1)
    for b, c, t in np.ndindex(*ids.shape):
        logp[b, c, t] = table.setdefault((b, ids[b, c, t].item()), logp[b, c, t].item())
    return replace(scores, negative_logp=logp[:, 1:])


@given(seed=st.integers(0, 10**6), form=st.sampled_from(FORMS), data=st.data())
@settings(max_examples=40)
def test_order_of_the_negatives_does_not_matter(seed, form, data):
    scores = consistent(scores_of(seed))
    order = torch.tensor(data.draw(st.permutations(range(6))))
    shuffled = replace(
        scores,
        negative_prefixes=scores.negative_prefixes[:, order],
        negative_logp=scores.negative_logp[:, order].contiguous(),
    )
    objective = objective_of("apao-pairwise", candidates=form, eta=0.5)
    one, other = evaluate(objective, scores), evaluate(objective, shuffled)
    torch.testing.assert_close(one.loss, other.loss)
    torch.testing.assert_close(one.terms, other.terms)


@given(
    seed=st.integers(0, 10**6),
    shift=st.floats(-50, 50),
    kind=st.sampled_from(["ce", "apao-pointwise", "apao-pairwise"]),
)
@settings(max_examples=40)
def test_a_constant_added_to_the_logits_does_not_matter(seed, shift, kind):
    scores = scores_of(seed)
    moved = replace(scores, logits=scores.logits + shift, eos_logits=scores.eos_logits - shift)
    objective = objective_of(kind)
    torch.testing.assert_close(evaluate(objective, scores).loss, evaluate(objective, moved).loss, atol=1e-4, rtol=1e-4)


@given(seed=st.integers(0, 10**6), form=st.sampled_from(FORMS))
@settings(max_examples=30)
def test_repeated_negatives_count_once_in_the_release_and_twice_in_plain(seed, form):
    scores = consistent(scores_of(seed))
    doubled = replace(
        scores,
        negative_prefixes=scores.negative_prefixes.repeat(1, 2, 1),
        negative_logp=scores.negative_logp.repeat(1, 2, 1),
    )
    objective = objective_of("apao-pairwise", candidates=form, divide_by_length=False)
    one, two = objective.prefix_losses(scores), objective.prefix_losses(doubled)
    if form == "release":
        torch.testing.assert_close(one, two)
    else:
        margins = scores.negative_logp.cumsum(2) - scores.prefix_logp[:, None]
        expected = (1 + 2 * margins.exp().sum(1)).log().mean(0)
        torch.testing.assert_close(two, expected, atol=1e-5, rtol=1e-4)


@given(seed=st.integers(0, 10**6), batch=st.integers(1, 4), negatives=st.integers(1, 7), levels=st.integers(1, 5))
@settings(max_examples=60)
def test_first_occurrences_against_sets(seed, batch, negatives, levels):
    tokens = torch.tensor(np.random.default_rng(seed).integers(0, 2, (batch, 1 + negatives, levels)))
    (ids,) = prefix_ids(tokens)
    found = first_occurrences(ids[:, 0], ids[:, 1:])
    for b in range(batch):
        for m in range(1, levels + 1):
            seen = {tuple(tokens[b, 0, :m].tolist())}
            for n in range(negatives):
                prefix = tuple(tokens[b, 1 + n, :m].tolist())
                assert found[b, n, m - 1].item() == (prefix not in seen)
                seen.add(prefix)


@pytest.mark.parametrize("levels", [1, 2, 3, 6])
@pytest.mark.parametrize("form", WEIGHTINGS)
@pytest.mark.parametrize("kind", ["apao-pointwise", "apao-pairwise"])
def test_any_depth(kind, form, levels):
    objective = objective_of(kind, weights=form, eta=0.3)
    outcome = evaluate(objective, scores_of(0, levels=levels))
    w = torch.stack([outcome.terms[f"prefix_weight_{m}"] for m in range(1, levels + 1)])
    assert outcome.loss.isfinite() and w.sum().item() == pytest.approx(1, abs=1e-6)
    assert (w >= 0).all() and f"prefix_weight_{levels + 1}" not in outcome.terms
    if levels == 1:
        expected = outcome.terms["ce"] + objective.beta * outcome.terms["prefix_loss_1"]
        torch.testing.assert_close(outcome.loss, expected)


def test_one_level_and_pointwise_is_a_multiple_of_cross_entropy():
    outcome = evaluate(objective_of("apao-pointwise", beta=0.5, eos=False), scores_of(1, levels=1))
    assert outcome.loss.item() == pytest.approx(1.5 * outcome.terms["ce"].item())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("negatives", [1, 4])
def test_negatives_that_equal_the_positive(form, negatives):
    """Negatives equal to the target. Plain: L = log(1 + N). Release: no negative is kept, L = 0."""
    scores = scores_of(2, batch=1, levels=3, negatives=negatives)
    scores = replace(
        scores,
        negative_prefixes=scores.prefixes[:, None].repeat(1, negatives, 1),
        negative_logp=scores.target_logp[:, None].repeat(1, negatives, 1),
    )
    objective = objective_of("apao-pairwise", candidates=form, divide_by_length=False)
    expected = 0.0 if form == "release" else np.log(1 + negatives)
    assert objective.prefix_losses(scores).tolist() == pytest.approx([expected] * 3, abs=1e-6)
    assert evaluate(objective, scores).loss.isfinite()


@pytest.mark.parametrize("form", WEIGHTINGS)
@pytest.mark.parametrize("candidates", FORMS)
@pytest.mark.parametrize("kind", ["apao-pointwise", "apao-pairwise"])
@pytest.mark.parametrize("items", [1, 2])
def test_tiny_catalogues_and_extreme_logits_stay_finite(items, kind, candidates, form):
    """Catalogues of one and two items (codes 3 3 and 3 4), and logits of 1e4 either way, for ten steps."""
    codes = torch.tensor([[3, 3], [3, 4]])[:items]
    options = {"candidates": candidates} if kind == "apao-pairwise" else {}
    objective = objective_of(kind, weights=form, eta=0.5, **options)
    state = objective.initial_state(2, torch.device("cpu"))
    for step in range(10):
        rng = np.random.default_rng(step)
        size = 1e4 if step % 2 else 1.0
        logits = torch.tensor(size * rng.choice([-1.0, 1.0], (2, 3, 6)), dtype=torch.float32, requires_grad=True)
        targets = codes[torch.tensor(rng.integers(0, items, 2))]
        negatives = codes[torch.tensor(rng.integers(0, items, (2, 3)))]
        logp = (size * torch.tensor(rng.uniform(-2, 0, (2, 3, 2)), dtype=torch.float32)).requires_grad_()
        prefixes, negative_prefixes = prefix_ids(targets, negatives)
        catalogue = SimpleNamespace(prefix_counts=torch.tensor([1, items]))
        scores = Scores(logits[:, :2], targets, prefixes, catalogue, logits[:, 2], logp, negative_prefixes)
        loss, terms, state = objective(scores, state)
        assert loss.isfinite() and all(value.isfinite() for value in terms.values())
        loss.backward()
        assert logits.grad.isfinite().all() and (logp.grad is None or logp.grad.isfinite().all())


@given(losses=st.lists(st.floats(0, 50), min_size=2, max_size=6), eta=st.floats(0, 2), form=st.sampled_from(WEIGHTINGS))
def test_weights_are_a_distribution_that_leans_towards_the_worst(losses, eta, form):
    levels = len(losses)
    kept = torch.ones(levels, dtype=torch.bool)
    w = log_prefix_weights(torch.tensor(losses), kept, form, eta, torch.full((levels,), -np.log(levels))).exp()
    assert w.sum().item() == pytest.approx(1, abs=1e-5) and (w >= 0).all()
    order = np.argsort(losses)
    assert (np.diff(w.numpy()[order]) >= -1e-6).all()


def test_a_batch_without_losses_leaves_carried_weights_alone():
    """Losses of 0: carried weights do not change, since exp(eta * 0) = 1; the others are equal."""
    carried, kept, nothing = torch.tensor([0.2, 0.5, 0.3]).log(), torch.ones(3, dtype=torch.bool), torch.zeros(3)
    for form in ("eq17", "algorithm1"):
        torch.testing.assert_close(log_prefix_weights(nothing, kept, form, 0.5, carried), carried)
    afresh = log_prefix_weights(nothing, kept, "release", 0.5, None).exp()
    torch.testing.assert_close(afresh, torch.full((3,), 1 / 3))


def test_release_ignores_losses_that_are_not_finite():
    losses = torch.tensor([1.0, torch.inf, 3.0, torch.nan])
    w = log_prefix_weights(losses, torch.ones(4, dtype=torch.bool), "release", 0.1, None).exp()
    expected = np.array([1 * np.exp(0.1), 0, 3 * np.exp(0.3), 0])
    np.testing.assert_allclose(w.numpy(), expected / expected.sum(), rtol=1e-6)


def test_dropped_levels_get_nothing_and_no_gradient():
    scores = scores_of(3, levels=3)
    logits = scores.logits.clone().requires_grad_()
    scores = replace(scores, logits=logits)
    outcome = evaluate(objective_of("apao-pointwise", drop_level=2, ce=False, beta=1.0), scores)
    assert outcome.terms["prefix_weight_3"] == 0 and outcome.terms["prefix_loss_3"] > 0
    (gradient,) = torch.autograd.grad(outcome.loss, logits)
    assert (gradient[:, 2] == 0).all() and (gradient[:, :2] != 0).any()


def test_the_release_adds_to_the_denominator_what_matters_before_training():
    """S = -30 for the target and one equally likely negative, as before training: e^S+ / (2 e^S+ + 1e-12)."""
    scores = scores_of(4, batch=1, levels=1, negatives=1)
    logits = torch.zeros(1, 1, VOCABULARY, dtype=torch.float64)
    logits[0, 0, scores.targets[0, 0]] = -30.0
    logp = logits.log_softmax(-1)[0, 0, scores.targets[0, 0]].item()
    scores = replace(
        scores,
        logits=logits,
        statistics=SimpleNamespace(prefix_counts=torch.tensor([3])),
        negative_prefixes=scores.prefixes[:, None] + 1,
        negative_logp=torch.full((1, 1, 1), logp, dtype=torch.float64),
    )
    found = objective_of("apao-pairwise").prefix_losses(scores).item()
    p = np.exp(logp)
    assert found == pytest.approx(-np.log(p / (2 * p + 1e-12)), rel=1e-12) and found > np.log(2) + 1
    plain = objective_of("apao-pairwise", candidates="plain").prefix_losses(scores).item()
    assert plain == pytest.approx(np.log(2), rel=1e-12)


def one_after_another(form, eta, batches):
    """Algorithm 1 literally: each forward pass updates w, then weights its losses; returns the final and all used w."""
    w = np.full(len(batches[0]), 1 / len(batches[0]))
    used = []
    for losses in batches:
        w = w * np.exp(eta * (losses if form == "eq17" else losses / losses.sum()))
        w = w / w.sum()
        used.append(w)
    return w, np.array(used)


@pytest.mark.parametrize("form", ["eq17", "algorithm1"])
def test_moves_of_a_step_are_those_of_its_forward_passes(form):
    """Eight forward passes of 128 examples against one step with the mean of their losses, at the paper's largest eta.

    The final w agree to rounding for Eq. 17 and to the spread of sum L between batches for Algorithm 1; the w
    used within the step differ from the one at its middle by less than half a percent.
    """
    rng = np.random.default_rng(0)
    batches = np.array([5.5, 4.1, 3.3, 3.2]) + rng.normal(0, 0.15, (8, 4))
    eta = 5e-4
    expected, used = one_after_another(form, eta, batches)
    objective = objective_of("apao-pointwise", weights=form, eta=eta, ce=False, beta=1.0)
    state = objective.initial_state(4, torch.device("cpu"))
    # Target probabilities with L_m = -S_m / m as given: s_m = m L_m - (m - 1) L_(m-1).
    mean_losses = batches.mean(axis=0)
    steps = np.diff(mean_losses * np.arange(1, 5), prepend=0.0)
    scores = scores_of(0, batch=1)
    logits = torch.zeros(1, 4, VOCABULARY, dtype=torch.float64)
    p = np.exp(-steps)
    logits.scatter_(2, scores.targets[..., None], torch.tensor(np.log(p / (1 - p) * (VOCABULARY - 1)))[None, :, None])
    scores = replace(scores, logits=logits, step_examples=8 * FORWARD_EXAMPLES)
    assert objective.prefix_losses(scores).numpy() == pytest.approx(mean_losses)
    outcome = objective(scores, state)
    assert outcome.state[CARRIED].exp().numpy() == pytest.approx(expected, rel=1e-6 if form == "eq17" else 1e-5)
    weights = [outcome.terms[f"prefix_weight_{m}"].item() for m in range(1, 5)]
    assert np.abs(used / weights - 1).max() < 5e-3
    # With carry: step, the weights change an eighth as much.
    by_step = objective_of("apao-pointwise", weights=form, eta=eta, carry="step")(scores, state).state[CARRIED]
    far, near = (np.abs(w.numpy() - np.log(1 / 4)).max() for w in (outcome.state[CARRIED], by_step))
    assert far == pytest.approx(8 * near, rel=0.02)


def test_the_loss_of_a_step_has_the_weights_of_its_middle():
    """With a large eta, which tells the middle of the eight forward passes from their end."""
    scores, eta = replace(scores_of(0), step_examples=8 * FORWARD_EXAMPLES), 0.1
    objective = objective_of("apao-pointwise", weights="eq17", eta=eta)
    losses = objective.prefix_losses(scores)
    outcome = objective(scores, objective.initial_state(len(losses), torch.device("cpu")))
    used = torch.stack([outcome.terms[f"prefix_weight_{m}"] for m in range(1, len(losses) + 1)])
    torch.testing.assert_close(used, torch.softmax(4.5 * eta * losses, 0), check_dtype=False)
    torch.testing.assert_close(outcome.state[CARRIED].exp(), torch.softmax(8 * eta * losses, 0), check_dtype=False)


@pytest.mark.parametrize(("examples", "moves"), [(1024, 8), (1, 1), (128, 1), (129, 2), (647, 6), (None, 1)])
def test_how_often_weights_are_updated(examples, moves):
    scores = replace(scores_of(0), step_examples=examples)
    assert objective_of("apao-pointwise", weights="eq17").updates(scores) == moves
    assert objective_of("apao-pointwise", weights="eq17", carry="step").updates(scores) == 1
    assert objective_of("apao-pointwise", weights="release").updates(scores) == 1


@pytest.mark.parametrize("kind", ["apao-pointwise", "apao-pairwise"])
def test_contradictory_hyper_parameters_are_refused(kind):
    with pytest.raises(ValidationError, match="nothing to train"):
        objective_of(kind, ce=False, beta=0)
    for bad in ({"beta": -0.1}, {"eta": -1}, {"weights": "eq18"}, {"drop_level": -1}, {"betta": 1}):
        with pytest.raises(ValidationError):
            objective_of(kind, **bad)
    objective_of(kind, drop_level=3).check_levels(4)
    with pytest.raises(ValueError, match="drop_level 4"):
        objective_of(kind, drop_level=4).check_levels(4)
    with pytest.raises(ValueError, match="drop_level 0"):
        objective_of(kind, drop_level=0).check_levels(1)
