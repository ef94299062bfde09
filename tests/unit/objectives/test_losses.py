"""Value and gradient of the prefix losses against a second, slow implementation of the formulas."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import slow_losses as slow
import torch
from gradients import LEAVES, assert_gradients
from helpers.models import prefix_ids

from apao.objectives.base import OBJECTIVES, Scores

BATCH, NEGATIVES, VOCABULARY = 2, 5, 7


def catalogue(levels):
    """Negatives that repeat the target's prefixes and one another's, as draws with replacement do."""
    rng = np.random.default_rng(levels)
    targets = rng.integers(3, 6, (BATCH, levels))
    negatives = rng.integers(3, 6, (BATCH, NEGATIVES, levels))
    negatives[0, 0] = targets[0]
    negatives[1, 1] = negatives[1, 3]
    counts = tuple(min(3**m, 20 + m) for m in range(1, levels + 1))
    return targets, negatives, counts


def examples_of(seed, levels):
    """Random log-probabilities as plain lists."""
    rng = np.random.default_rng(seed)
    targets, negatives, _ = catalogue(levels)
    return [
        slow.Example(
            logits=rng.normal(0, 1.5, (levels, VOCABULARY)).tolist(),
            eos_logits=rng.normal(0, 1.5, VOCABULARY).tolist(),
            target=targets[i].tolist(),
            negatives=negatives[i].tolist(),
            negative_logp=(-rng.exponential(2, (NEGATIVES, levels))).tolist(),
        )
        for i in range(BATCH)
    ]


def scores_of(examples, levels, eos=True):
    """The same as tensors; logits and negatives' log-probabilities require gradients."""
    leaves = {
        name: torch.tensor([getattr(example, name) for example in examples], dtype=torch.float64, requires_grad=True)
        for name in LEAVES
    }
    targets, negatives, counts = catalogue(levels)
    prefixes, negative_prefixes = prefix_ids(torch.tensor(targets), torch.tensor(negatives))
    scores = Scores(
        logits=leaves["logits"],
        targets=torch.tensor(targets),
        prefixes=prefixes,
        statistics=SimpleNamespace(prefix_counts=torch.tensor(counts)),
        eos_logits=leaves["eos_logits"] if eos else None,
        negative_logp=leaves["negative_logp"],
        negative_prefixes=negative_prefixes,
    )
    return scores, leaves


@pytest.mark.parametrize("eos", [True, False])
@pytest.mark.parametrize("levels", [1, 3])
def test_cross_entropy(levels, eos):
    examples = examples_of(1, levels)
    scores, leaves = scores_of(examples, levels, eos)
    outcome = OBJECTIVES["ce"](type="ce", eos=eos)(scores, {})

    def loss(changed):
        return slow.cross_entropy(changed, eos)

    assert outcome.loss.item() == pytest.approx(loss(examples), abs=1e-12)
    assert outcome.terms["ce"].item() == outcome.loss.item()
    assert_gradients(loss, examples, leaves, outcome)


WEIGHTINGS = ("uniform", "release", "eq17", "algorithm1")
VARIANTS = [("apao-pointwise", {})] + [
    ("apao-pairwise", {"candidates": form, "divide_by_length": divide})
    for form in ("plain", "release")
    for divide in (True, False)
]


def one_loss_of(kind, options, counts):
    if kind == "apao-pointwise":
        return slow.pointwise
    return lambda example, m: slow.pairwise(
        example, m, options["candidates"] == "release", options["divide_by_length"], counts
    )


@pytest.mark.parametrize("drop_level", [None, 0, 2])
@pytest.mark.parametrize("form", WEIGHTINGS)
@pytest.mark.parametrize(("kind", "options"), VARIANTS)
def test_prefix_losses_over_three_steps(kind, options, form, drop_level):
    """Values and gradients of three consecutive batches, with the state passed on."""
    levels, beta, eta = 3, 0.7, 0.4
    _, _, counts = catalogue(levels)
    one_loss = one_loss_of(kind, options, counts)
    carried = [1 / levels] * levels
    for (step, ce), eos in zip(enumerate((True, False, True)), (True, True, False), strict=True):
        objective = OBJECTIVES[kind](
            type=kind, beta=beta, eta=eta, weights=form, drop_level=drop_level, ce=ce, eos=eos, **options
        )
        if step == 0:
            state = objective.initial_state(levels, torch.device("cpu"))
        examples = examples_of(step, levels)
        scores, leaves = scores_of(examples, levels, objective.trains_eos)
        outcome = objective(scores, state)
        losses = slow.prefix_losses(examples, one_loss, levels)
        w = slow.weights(losses, form, eta, carried, drop_level)

        def loss(changed, w=w, ce=ce, eos=eos):
            return slow.apao(changed, one_loss, levels, beta, w, ce, eos)

        assert outcome.loss.item() == pytest.approx(loss(examples), abs=1e-7)
        for m in range(levels):
            assert outcome.terms[f"prefix_loss_{m + 1}"].item() == pytest.approx(losses[m], abs=1e-7)
            assert outcome.terms[f"prefix_weight_{m + 1}"].item() == pytest.approx(w[m], abs=1e-7)
        # Without CE no eos is trained, so none counts in the mean.
        assert outcome.terms["ce"].item() == pytest.approx(slow.cross_entropy(examples, eos and ce), abs=1e-12)
        assert_gradients(loss, examples, leaves, outcome)
        assert bool(outcome.state) == (form in ("eq17", "algorithm1"))
        carried, state = w, outcome.state


@pytest.mark.parametrize(
    ("kind", "options"), [("ce", {}), *((kind, {**options, "weights": "uniform"}) for kind, options in VARIANTS)]
)
def test_gradcheck(kind, options):
    """With constant weights the loss is smooth, and autograd's own gradient check applies."""
    levels = 3
    scores, leaves = scores_of(examples_of(5, levels), levels)
    objective = OBJECTIVES[kind](type=kind, **options)

    def loss(*values):
        return objective(replace(scores, **dict(zip(LEAVES, values, strict=True))), {}).loss

    assert torch.autograd.gradcheck(loss, tuple(leaves[name] for name in LEAVES))


@pytest.mark.parametrize("eos", [True, False])
def test_uniform_weights_are_a_reweighted_cross_entropy(eos):
    """Pointwise with w = 1/T: token t has the weight (1/T) sum_{m >= t} 1/m of its -s_t."""
    levels, beta = 4, 0.3
    scores, _ = scores_of(examples_of(2, levels), levels, eos)
    objective = OBJECTIVES["apao-pointwise"](type="apao-pointwise", beta=beta, weights="uniform", eos=eos)
    token = torch.tensor([sum(1 / m for m in range(t, levels + 1)) / levels for t in range(1, levels + 1)])
    tokens = -(scores.target_logp * (1 / (levels + eos) + beta * token.double())).sum(dim=1)
    expected = (tokens - eos * scores.eos_logp / (levels + 1)).mean()
    assert objective(scores, {}).loss.item() == pytest.approx(expected.item(), abs=1e-7)


@pytest.mark.parametrize("eos", [True, False])
@pytest.mark.parametrize(("kind", "options"), VARIANTS)
def test_beta_zero_is_cross_entropy(kind, options, eos):
    levels = 3
    scores, leaves = scores_of(examples_of(3, levels), levels, eos)
    objective = OBJECTIVES[kind](type=kind, beta=0.0, eos=eos, **options)
    both = [objective(scores, {}).loss, OBJECTIVES["ce"](type="ce", eos=eos)(scores, {}).loss]
    assert both[0].item() == both[1].item()
    gradients = [torch.autograd.grad(loss, leaves["logits"], retain_graph=True)[0] for loss in both]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("form", WEIGHTINGS)
@pytest.mark.parametrize("kind", ["apao-pointwise", "apao-pairwise"])
def test_no_gradient_through_the_weights(kind, form):
    """The gradient equals that of the loss with the weights as constants."""
    levels, beta = 3, 0.5
    scores, leaves = scores_of(examples_of(4, levels), levels)
    objective = OBJECTIVES[kind](type=kind, beta=beta, eta=2.0, weights=form)
    outcome = objective(scores, objective.initial_state(levels, torch.device("cpu")))
    assert not any(value.requires_grad for value in outcome.terms.values())
    w = torch.tensor([outcome.terms[f"prefix_weight_{m}"].item() for m in range(1, levels + 1)]).double()
    fixed = OBJECTIVES["ce"](type="ce")(scores, {}).loss + beta * (w * objective.prefix_losses(scores)).sum()
    for name in LEAVES if kind == "apao-pairwise" else LEAVES[:2]:
        found, expected = (torch.autograd.grad(x, leaves[name], retain_graph=True)[0] for x in (outcome.loss, fixed))
        torch.testing.assert_close(found, expected, atol=1e-8, rtol=1e-6)
