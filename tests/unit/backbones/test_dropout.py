"""The CPU dropout against the definition of dropout."""

import pytest
import torch
from torch import nn

from apao.backbones.base import BACKBONES
from apao.backbones.dropout import Dropout

ELEMENTS = 400_000


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_rate_scale_and_mean(p):
    torch.manual_seed(0)
    x = torch.rand(ELEMENTS) + 0.5
    out = Dropout(p).train()(x)
    kept = out != 0
    # Five standard deviations of the share of kept elements.
    assert abs(kept.double().mean().item() - (1 - p)) < 5 * (p * (1 - p) / ELEMENTS) ** 0.5
    torch.testing.assert_close(out[kept], x[kept] / (1 - p))


@pytest.mark.parametrize("p", [0.99999, 0.999999])
def test_rates_just_below_one_drop_nearly_everything(p):
    torch.manual_seed(0)
    assert (Dropout(p).train()(torch.ones(ELEMENTS)) != 0).double().mean() < 1e-4


def test_neighbouring_elements_are_independent():
    """Four masks come from one random word and must be independent, at each of the four 16-bit positions."""
    torch.manual_seed(0)
    dropped = (Dropout(0.5).train()(torch.ones(ELEMENTS)) == 0).double().view(-1, 4)
    assert (dropped.mean(0) - 0.5).abs().max() < 5 * 0.5 / (ELEMENTS / 4) ** 0.5
    correlation = torch.corrcoef(dropped.T) - torch.eye(4)
    assert correlation.abs().max() < 5 / (ELEMENTS / 4) ** 0.5


def test_masks_differ_between_calls_and_follow_the_seed():
    dropout, x = Dropout(0.5).train(), torch.ones(1000)
    torch.manual_seed(1)
    first, second = dropout(x), dropout(x)
    assert 0.4 < ((first == 0) == (second == 0)).double().mean() < 0.6
    torch.manual_seed(1)
    assert torch.equal(dropout(x), first)


@pytest.mark.parametrize("shape", [(0,), (1,), (3, 5), (2, 3, 7)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_keeps_shape_and_type(shape, dtype):
    x = torch.randn(shape, dtype=dtype)
    out = Dropout(0.3).train()(x)
    assert out.shape == x.shape and out.dtype == dtype


def test_reads_strided_inputs_in_place_of_their_elements():
    torch.manual_seed(0)
    x = torch.arange(1.0, 201).view(20, 10).T
    out = Dropout(0.5).train()(x)
    assert ((out == 0) | torch.isclose(out, 2 * x)).all() and (out != 0).any()


@pytest.mark.parametrize("dropout", [Dropout(0.7).eval(), Dropout(0.0).train()])
def test_is_the_identity_when_there_is_nothing_to_drop(dropout):
    x = torch.randn(50)
    assert dropout(x) is x


def test_gradient_goes_through_kept_elements_only():
    torch.manual_seed(0)
    x = torch.randn(1000, requires_grad=True)
    out = Dropout(0.25).train()(x)
    out.sum().backward()
    expected = torch.where(out == 0, 0.0, 1 / 0.75)
    torch.testing.assert_close(x.grad, expected)


def test_says_the_same_as_torchs_own_on_average():
    """A layer after this dropout has outputs with the same mean and variance as after torch's."""
    torch.manual_seed(0)
    x = torch.randn(64)
    samples = [torch.stack([layer(x.expand(20_000, -1)).sum(dim=1)]) for layer in (Dropout(0.2), nn.Dropout(0.2))]
    ours, theirs = samples
    spread = theirs.std().item()
    assert abs(ours.mean() - theirs.mean()) < 5 * spread * (2 / 20_000) ** 0.5
    assert ours.std().item() == pytest.approx(spread, rel=0.03)


def test_tiger_drops_what_both_stacks_put_out():
    sizes = {"d_model": 32, "d_ff": 32, "d_kv": 8, "heads": 2, "encoder_layers": 1, "decoder_layers": 1}
    model = BACKBONES["tiger"](type="tiger", dropout=0.5, **sizes).build(30).train()
    history, codes = torch.randint(3, 30, (64, 8)), torch.randint(3, 30, (64, 2, 3))
    context = model.encode(history, codes[:, 0], codes)
    for states in (model._encode_history(history)[0], context.along, context.after, model.extend(context, codes)[0]):
        assert (states == 0).float().mean() > 0.45  # without this dropout about 0.1
