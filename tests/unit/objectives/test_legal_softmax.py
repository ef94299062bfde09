"""msl and bear: values and gradients against slow formulas, and their relations to each other and to ce."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import slow_families as slow
import torch
from family_batches import LEVELS, assert_same, batch_of, evaluate, gradcheck, gradients, objective_of
from gradients import assert_gradients

# One, a few, and more than the number of tokens.
BEAMS = (1, 2, 20)


def branches(batch):
    """(B, T) legal continuations of the targets' prefixes."""
    return torch.tensor([[len(step) for step in slow.legal_logp(one, batch.items, 1.0)] for one in batch.examples])


@pytest.mark.parametrize("eos", [True, False])
@pytest.mark.parametrize("tau", [1.0, 3.0])
@pytest.mark.parametrize("levels", LEVELS)
def test_msl(levels, tau, eos):
    batch = batch_of(levels, levels, eos=eos)
    outcome = evaluate(objective_of("msl", tau=tau, eos=eos), batch.scores)

    def loss(examples):
        return slow.msl(examples, batch.items, tau, eos)

    assert outcome.loss.item() == pytest.approx(loss(batch.examples), abs=1e-10)
    assert outcome.terms["msl"].item() == outcome.loss.item()
    assert_gradients(loss, batch.examples, batch.leaves, outcome)


@pytest.mark.parametrize("beam", BEAMS)
@pytest.mark.parametrize("form", ["paper", "release"])
@pytest.mark.parametrize("levels", LEVELS)
def test_bear(levels, form, beam):
    """b_t and the release's weights are constants in the finite differences."""
    tau, xi, lam = 1.5, 0.8, 0.6
    batch = batch_of(10 + levels, levels, batch=4)
    outcome = evaluate(objective_of("bear", form=form, tau=tau, xi=xi, lam=lam, beam=beam), batch.scores)
    thresholds = [slow.log_b(one, batch.items, tau, beam) for one in batch.examples]
    weights = slow.bear_weights(batch.examples, batch.items, tau, xi, lam, beam)

    def loss(examples):
        if form == "paper":
            return slow.bear_paper(examples, batch.items, tau, xi, lam * xi, thresholds)
        return slow.bear_release(examples, batch.items, tau, weights)

    assert outcome.loss.item() == pytest.approx(loss(batch.examples), abs=1e-10)
    assert_gradients(loss, batch.examples, batch.leaves, outcome)


@pytest.mark.parametrize("eos", [True, False])
def test_bear_terms(eos):
    tau, beam = 1.5, 2
    batch = batch_of(1, 3, batch=8)
    terms = evaluate(objective_of("bear", tau=tau, beam=beam, eos=eos), batch.scores).terms
    assert terms["msl"].item() == pytest.approx(slow.msl(batch.examples, batch.items, tau, eos), abs=1e-10)
    in_beam = [
        s >= b
        for one in batch.examples
        for s, b in zip(
            slow.legal_target_logp(one, batch.items, tau), slow.log_b(one, batch.items, tau, beam), strict=True
        )
    ]
    assert terms["in_beam"].item() == pytest.approx(sum(in_beam) / len(in_beam)) and not all(in_beam)


@pytest.mark.parametrize("levels", LEVELS)
def test_msl_gradcheck(levels):
    assert gradcheck(objective_of("msl", tau=2.0), batch_of(levels, levels))


@pytest.mark.parametrize("shape", [{"batch": 1}, {"batch": 6}, {"levels": 1}, {"levels": 6}])
@pytest.mark.parametrize("beam", BEAMS)
@pytest.mark.parametrize("seed", [1, 2, 5])
def test_both_forms_of_bear_have_one_gradient_direction(seed, beam, shape):
    options = {"xi": 0.7, "lam": 1.3, "tau": 2.0, "beam": beam}
    batch = batch_of(seed, **shape)
    if shape == {"batch": 6}:
        assert set(branches(batch).flatten().tolist()) == {1, 2, 3}
    found = []
    for form in ("paper", "release"):
        loss = evaluate(objective_of("bear", form=form, **options), batch.scores).loss
        found.append(gradients(loss, {"logits": batch.leaves["logits"]}))
    assert torch.cosine_similarity(*found, dim=0).item() == pytest.approx(1, abs=1e-9)
    # The cosine tolerates small differences; the comparison of the vectors does not.
    torch.testing.assert_close(*(one / one.norm() for one in found), atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("form", ["paper", "release"])
@pytest.mark.parametrize("seed", range(3))
def test_bear_without_lambda_points_where_msl_does(seed, form):
    batch = batch_of(seed)
    logits = {"logits": batch.leaves["logits"]}
    bear = evaluate(objective_of("bear", form=form, lam=0.0, tau=2.0), batch.scores).loss
    msl = evaluate(objective_of("msl", eos=False, tau=2.0), batch.scores).loss
    found, expected = gradients(bear, logits), gradients(msl, logits)
    torch.testing.assert_close(found / found.norm(), expected / expected.norm(), atol=1e-12, rtol=1e-9)
    if form == "paper":
        torch.testing.assert_close(bear, 3 * msl)


def test_lambda_turns_the_gradient():
    """The agreement above is not trivial: the penalty changes the direction."""
    batch = batch_of(0)
    logits = {"logits": batch.leaves["logits"]}
    one, other = (
        gradients(evaluate(objective_of("bear", lam=lam, beam=1, xi=0.5), batch.scores).loss, logits)
        for lam in (0.0, 5.0)
    )
    assert torch.cosine_similarity(one, other, dim=0) < 0.999


@pytest.mark.parametrize("levels", LEVELS)
def test_msl_is_ce_where_everything_is_legal(levels):
    """The loss of the eos step is 0; it only adds a token to the mean."""
    batch = batch_of(4, levels)
    everything = SimpleNamespace(legal=lambda states: torch.ones_like(batch.scores.legal))
    scores = replace(batch.scores, statistics=SimpleNamespace(trie=everything))
    ce = evaluate(objective_of("ce", eos=False), scores).loss
    assert_same(evaluate(objective_of("msl", eos=False), scores).loss, ce, batch.leaves)
    assert_same(evaluate(objective_of("msl", eos=True), scores).loss, ce, batch.leaves, levels / (levels + 1))


@pytest.mark.parametrize(("kind", "options"), [("msl", {}), ("bear", {"form": "paper"}), ("bear", {"form": "release"})])
def test_tokens_that_are_not_legal_do_not_matter(kind, options):
    """Illegal tokens neither change the loss nor get a gradient."""
    batch = batch_of(5)
    objective = objective_of(kind, **options)
    logits = batch.leaves["logits"]
    legal = batch.scores.legal
    moved = replace(batch.scores, logits=torch.where(legal, logits, 50 * torch.sin(logits)))
    one, other = evaluate(objective, batch.scores).loss, evaluate(objective, moved).loss
    assert one.item() == other.item()
    (gradient,) = torch.autograd.grad(one, logits)
    assert (gradient[~legal] == 0).all()
    # The only legal token gets no gradient; all others do.
    assert ((gradient != 0) == (legal & (legal.sum(-1, keepdim=True) > 1))).all()


@pytest.mark.parametrize("form", ["paper", "release"])
def test_the_worst_legal_token_is_the_threshold_of_a_beam_wider_than_the_choice(form):
    """No step has more than three legal tokens, so a beam beyond three changes nothing."""
    batch = batch_of(6, batch=6)
    assert branches(batch).max() == 3
    losses = [
        evaluate(objective_of("bear", form=form, beam=beam), batch.scores).loss.item() for beam in (1, 2, 3, 4, 1000)
    ]
    assert losses[2] == losses[3] == losses[4] and len(set(losses)) == 3
