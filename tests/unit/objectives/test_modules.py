"""The library losses (torch modules) against loops over Python floats and against the objectives of params.yaml."""

import math

import pytest
import torch
from slow_losses import Example, apao, pairwise, pointwise, prefix_losses, weights

from apao.objectives import PairwisePrefixLoss, PointwisePrefixLoss

B, N, T, V = 3, 5, 4, 7
FORMS = ("eq17", "algorithm1", "release", "uniform")


@pytest.fixture
def batch():
    """A model's logits (B, T, V) and targets, log-probabilities of negatives, and the same as plain lists."""
    random = torch.Generator().manual_seed(3)
    logits = torch.randn(B, T, V, generator=random, dtype=torch.float64).requires_grad_()
    targets = torch.randint(V, (B, T), generator=random)
    negative_logp = -torch.rand(B, N, T, generator=random, dtype=torch.float64)
    negatives = torch.randint(V, (B, N, T), generator=random).tolist()
    examples = [
        Example(logits[b].tolist(), [0.0] * V, targets[b].tolist(), negatives[b], negative_logp[b].tolist())
        for b in range(B)
    ]
    return logits.log_softmax(-1).gather(-1, targets[..., None])[..., 0], negative_logp, examples


def one_loss(kind):
    if kind is PointwisePrefixLoss:
        return pointwise
    return lambda example, m: pairwise(example, m, release=False, divide=True, prefix_counts=None)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", [PointwisePrefixLoss, PairwisePrefixLoss])
def test_prefix_loss_is_the_papers_over_two_steps(batch, kind, form):
    target_logp, negative_logp, examples = batch
    criterion = kind(levels=T, beta=0.3, eta=0.8, weights=form).double()
    given = (target_logp,) if kind is PointwisePrefixLoss else (target_logp, negative_logp)
    losses, w = prefix_losses(examples, one_loss(kind), T), [1 / T] * T
    for _ in range(2):
        w = weights(losses, form, 0.8, w, None)
        expected = apao(examples, one_loss(kind), T, 0.3, w, ce=True, eos=False)
        assert criterion(*given).item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("kind", [PointwisePrefixLoss, PairwisePrefixLoss])
def test_prefix_weights_carry_no_gradient_and_rest_in_eval_mode(batch, kind):
    target_logp, negative_logp, _ = batch
    given = (target_logp,) if kind is PointwisePrefixLoss else (target_logp, negative_logp)
    criterion = kind(levels=T, beta=0.3, eta=0.8).double()
    criterion(*given).backward(retain_graph=True)
    assert not criterion.log_prefix_weights.requires_grad
    moved = criterion.log_prefix_weights.clone()
    assert moved.std() > 0
    criterion.eval()(*given)
    assert torch.equal(criterion.log_prefix_weights, moved)
    # A checkpoint of the module resumes with the weights it had.
    other = kind(levels=T).double()
    other.load_state_dict(criterion.state_dict())
    assert torch.equal(other.log_prefix_weights, moved)


@pytest.mark.parametrize("kind", [PointwisePrefixLoss, PairwisePrefixLoss])
def test_gradients_are_those_of_the_loss(batch, kind):
    """To the target and to the negatives; equal weights are constant, as the loss takes them to be."""
    given = [logp.detach().requires_grad_() for logp in batch[: 1 + (kind is PairwisePrefixLoss)]]
    assert torch.autograd.gradcheck(kind(levels=T, beta=0.3, weights="uniform").double(), given)


@pytest.mark.parametrize("form", FORMS)
def test_the_loss_is_the_same_in_eval_mode(batch, form):
    target_logp, negative_logp, _ = batch
    one, other = (PairwisePrefixLoss(levels=T, beta=0.3, eta=0.8, weights=form).double() for _ in range(2))
    assert one.eval()(target_logp, negative_logp).item() == other(target_logp, negative_logp).item()


def test_without_beta_it_is_cross_entropy(batch):
    target_logp, negative_logp, _ = batch
    assert PairwisePrefixLoss(levels=T, beta=0, eta=0)(target_logp, negative_logp).item() == pytest.approx(
        -target_logp.mean().item()
    )


def test_arguments_that_do_not_fit_are_refused(batch):
    target_logp, negative_logp, _ = batch
    with pytest.raises(ValueError, match="weights='nosuch': expected one of eq17, algorithm1, release, uniform"):
        PointwisePrefixLoss(levels=T, weights="nosuch")
    for levels in (1, T - 1):
        with pytest.raises(ValueError, match=rf"target_logp .*: expected \(B, T\) with T = levels = {levels}"):
            PairwisePrefixLoss(levels=levels)(target_logp, negative_logp)
    with pytest.raises(
        ValueError, match=rf"negative_logp .*: expected \(B, N, T\) with T = levels = {T}, and not empty"
    ):
        PairwisePrefixLoss(levels=T)(target_logp, target_logp)
    with pytest.raises(ValueError, match=r"target_logp \(0, .*and not empty"):
        PointwisePrefixLoss(levels=T)(target_logp[:0])
    with pytest.raises(ValueError, match=f"target_logp has {B} examples, negative_logp 1"):
        PairwisePrefixLoss(levels=T)(target_logp, negative_logp[:1])
    bad = ({"beta": -1.0}, {"eta": -1.0}, {"beta": math.nan}, {"eta": math.inf})
    for wrong in ({"levels": 0}, *({"levels": T, **values} for values in bad)):
        with pytest.raises(ValueError, match="expected levels from 1, beta and eta from 0"):
            PointwisePrefixLoss(**wrong)
