"""dpo, dmpo, s-dpo and ce+s-dpo: values and gradients against slow formulas, and their relations to each other."""

import math
from dataclasses import replace

import pytest
import slow_families as slow
import torch
from family_batches import PREFERENCES, assert_same, batch_of, evaluate, gradcheck, gradients, objective_of
from gradients import assert_gradients
from hypothesis import given, settings
from hypothesis import strategies as st

# A batch of one, one negative, and every depth.
SHAPES = [
    {"levels": 3, "batch": 3, "negatives": 5},
    {"levels": 1, "batch": 2, "negatives": 2},
    {"levels": 2, "batch": 1, "negatives": 4},
    {"levels": 6, "batch": 2, "negatives": 1},
]
# Without ``start`` ce+s-dpo has no reference; the others always have one.
REFERRED = [(kind, True) for kind in PREFERENCES] + [("ce+s-dpo", False)]
LAM = 0.7


def options_of(kind):
    return {"lam": LAM} if kind == "ce+s-dpo" else {}


def slow_loss(kind, beta, eos):
    return {
        "dpo": lambda examples: slow.dpo(examples, beta),
        "dmpo": lambda examples: slow.dmpo(examples, beta),
        "s-dpo": lambda examples: slow.s_dpo(examples, beta),
        "ce+s-dpo": lambda examples: slow.ce_and_s_dpo(examples, beta, LAM, eos),
    }[kind]


@pytest.mark.parametrize("beta", [0.5, 2.0])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("kind", "reference"), REFERRED)
def test_value_and_gradient(kind, reference, shape, beta):
    eos = beta == 2.0 or kind != "ce+s-dpo"
    batch = batch_of(1, **shape, eos=eos, reference=reference)
    outcome = evaluate(objective_of(kind, beta=beta, eos=eos, **options_of(kind)), batch.scores)
    loss = slow_loss(kind, beta, eos)
    assert outcome.loss.item() == pytest.approx(loss(batch.examples), abs=1e-10)
    assert_gradients(loss, batch.examples, batch.leaves, outcome)


@pytest.mark.parametrize(("kind", "reference"), REFERRED)
def test_gradcheck(kind, reference):
    assert gradcheck(objective_of(kind, beta=0.5, **options_of(kind)), batch_of(2, reference=reference))


@pytest.mark.parametrize("kind", ["dpo", "dmpo", "s-dpo"])
def test_terms(kind):
    batch = batch_of(3, batch=4, reference=True)
    terms = evaluate(objective_of(kind), batch.scores).terms
    found = [slow.rewards(one) for one in batch.examples]
    preferred = [chosen > r for chosen, rejected in found for r in rejected]
    assert terms["preferred"].item() == pytest.approx(sum(preferred) / len(preferred))
    assert 0 < sum(preferred) < len(preferred)
    assert terms["reward"].item() == pytest.approx(sum(chosen for chosen, _ in found) / 4, abs=1e-10)


@pytest.mark.parametrize("reference", [True, False])
def test_terms_of_ce_and_s_dpo(reference):
    batch = batch_of(3, reference=reference)
    terms = evaluate(objective_of("ce+s-dpo", beta=0.5, lam=LAM), batch.scores).terms
    assert terms["ce"].item() == pytest.approx(slow.cross_entropy(batch.examples, True), abs=1e-10)
    assert terms["preference"].item() == pytest.approx(slow.s_dpo(batch.examples, 0.5), abs=1e-10)


@given(order=st.permutations(range(5)), reference=st.booleans(), kind=st.sampled_from(PREFERENCES))
@settings(max_examples=25)
def test_order_of_the_negatives_does_not_matter(kind, reference, order):
    batch = batch_of(4, reference=reference)

    def shuffled(scores):
        return replace(
            scores,
            negative_logp=scores.negative_logp[:, order],
            negative_prefixes=scores.negative_prefixes[:, order],
            reference=None if scores.reference is None else shuffled(scores.reference),
        )

    objective = objective_of(kind, **options_of(kind))
    one, other = evaluate(objective, batch.scores), evaluate(objective, shuffled(batch.scores))
    assert_same(one.loss, other.loss, batch.leaves)
    torch.testing.assert_close(one.terms, other.terms)


@pytest.mark.parametrize("beta", [0.5, 2.0])
@pytest.mark.parametrize("seed", range(3))
def test_with_one_negative_all_three_are_one(seed, beta):
    batch = batch_of(seed, negatives=1, reference=True)
    dpo, dmpo, s_dpo = (evaluate(objective_of(k, beta=beta), batch.scores).loss for k in ("dpo", "dmpo", "s-dpo"))
    assert_same(dmpo, dpo, batch.leaves)
    assert_same(s_dpo, dpo, batch.leaves)


@pytest.mark.parametrize("negatives", [1, 5])
def test_a_model_that_is_its_reference_has_no_preference_yet(negatives):
    """All rewards are 0: the loss is log 2 for dpo and dmpo, log(1 + N) for s-dpo."""
    batch = batch_of(5, negatives=negatives)
    scores = replace(batch.scores, reference=replace(batch.scores))
    for kind, expected in (("dpo", 2), ("dmpo", 2), ("s-dpo", 1 + negatives)):
        outcome = evaluate(objective_of(kind, beta=1.7), scores)
        assert outcome.loss.item() == pytest.approx(math.log(expected), abs=1e-12)
        assert outcome.terms["reward"] == 0 and outcome.terms["preferred"] == 0


@pytest.mark.parametrize("negatives", [1, 4])
def test_negatives_that_equal_the_positive(negatives):
    """Equal codes give the loss of no preference and no gradient, for any reference that scores both alike."""
    batch = batch_of(6, negatives=negatives, reference=True)

    def same(scores):
        return replace(
            scores,
            negative_logp=scores.target_logp[:, None].expand(-1, negatives, -1),
            negative_prefixes=scores.prefixes[:, None].expand(-1, negatives, -1),
        )

    scores = replace(same(batch.scores), reference=same(batch.scores.reference))
    for kind, expected in (("dpo", 2), ("dmpo", 2), ("s-dpo", 1 + negatives)):
        loss = evaluate(objective_of(kind, beta=2.0), scores).loss
        assert loss.item() == pytest.approx(math.log(expected), abs=1e-12)
        assert gradients(loss, batch.leaves).abs().max() < 1e-12


@pytest.mark.parametrize("reference", [True, False])
@pytest.mark.parametrize("eos", [True, False])
def test_ce_and_s_dpo_without_lambda_is_ce(eos, reference):
    batch = batch_of(7, eos=eos, reference=reference)
    mixed = evaluate(objective_of("ce+s-dpo", lam=0.0, eos=eos), batch.scores).loss
    assert_same(mixed, evaluate(objective_of("ce", eos=eos), batch.scores).loss, batch.leaves)


def test_a_uniform_reference_is_no_reference():
    """A uniform reference cancels, because only differences count."""
    batch = batch_of(8)
    uniform = replace(
        batch.scores,
        logits=torch.zeros_like(batch.scores.logits),
        negative_logp=torch.full_like(batch.scores.negative_logp, -math.log(batch.scores.logits.shape[-1])),
    )
    objective = objective_of("ce+s-dpo")
    one, other = (evaluate(objective, replace(batch.scores, reference=r)).loss for r in (None, uniform))
    assert_same(one, other, batch.leaves)


@pytest.mark.parametrize("kind", PREFERENCES)
def test_a_reference_that_is_already_sure_asks_for_more(kind):
    """The further the reference prefers the target, the smaller the model's own reward and the larger the loss."""
    batch = batch_of(9, reference=True)
    surer = replace(batch.scores.reference, negative_logp=batch.scores.reference.negative_logp - 1)
    one, other = (
        evaluate(objective_of(kind), replace(batch.scores, reference=reference)).loss
        for reference in (batch.scores.reference, surer)
    )
    assert other > one


@pytest.mark.parametrize("kind", ["dpo", "dmpo", "s-dpo"])
def test_the_eos_step_is_no_part_of_a_preference(kind):
    """Whole codes are compared, and eos follows every one of them."""
    batch = batch_of(10, reference=True)
    loss = evaluate(objective_of(kind), batch.scores).loss
    assert torch.autograd.grad(loss, batch.leaves["eos_logits"], allow_unused=True) == (None,)


def test_the_model_that_it_starts_from_is_the_reference():
    assert objective_of("ce+s-dpo", start="ce").needs().reference
    assert not objective_of("ce+s-dpo").needs().reference
