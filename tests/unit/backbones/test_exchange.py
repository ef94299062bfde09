"""Weights that do not fit are refused by an error that names them."""

import pytest
import torch
from helpers.models import BOTH, backbone_of

from apao.errors import UserError

VOCABULARY = 11
FINAL_NORM = {"tiger": "decoder.final_layer_norm.weight", "llama": "model.norm.weight"}
TABLE = {"tiger": "shared.weight", "llama": "model.embed_tokens.weight"}


@pytest.fixture(params=BOTH)
def name(request):
    return request.param


@pytest.fixture
def pair(name):
    """A model and the weights of another of the same sizes."""
    return backbone_of(name, VOCABULARY, seed=0), dict(backbone_of(name, VOCABULARY, seed=1).to_transformers())


def test_round_trip_replaces_every_weight(pair):
    backbone, weights = pair
    before = backbone.to_transformers()
    assert not any(torch.equal(before[key], weights[key]) for key in weights)
    backbone.load_transformers(weights)
    after = backbone.to_transformers()
    assert after.keys() == weights.keys()
    assert all(torch.equal(after[key], weights[key]) for key in weights)
    assert len(weights) == len(list(backbone.parameters()))


def test_repeated_tied_tables_are_accepted(pair, name):
    backbone, weights = pair
    backbone.load_transformers({**weights, "lm_head.weight": weights[TABLE[name]]})


def test_missing_weight(pair, name):
    backbone, weights = pair
    del weights[FINAL_NORM[name]]
    with pytest.raises(UserError, match=rf"missing \['{FINAL_NORM[name]}'\]"):
        backbone.load_transformers(weights)


def test_unknown_weight(pair):
    backbone, weights = pair
    with pytest.raises(UserError, match=r"unknown \['head.bias'\]"):
        backbone.load_transformers({**weights, "head.bias": torch.zeros(1)})


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1, 1j])
def test_weights_that_are_no_finite_floats(pair, name, value):
    backbone, weights = pair
    shape = weights[FINAL_NORM[name]].shape
    weights[FINAL_NORM[name]] = torch.full(shape, value)
    with pytest.raises(UserError, match=rf"weight {FINAL_NORM[name]} \(.*\) does not hold finite"):
        backbone.load_transformers(weights)
    weights[FINAL_NORM[name]] = torch.ones(shape, dtype=torch.float16)
    backbone.load_transformers(weights)


def test_weights_of_the_other_backbone(name):
    (other,) = set(BOTH) - {name}
    with pytest.raises(UserError, match="do not belong to this backbone"):
        backbone_of(name, VOCABULARY).load_transformers(backbone_of(other, VOCABULARY).to_transformers())


def test_another_vocabulary(pair, name):
    backbone, _ = pair
    width = backbone.to_transformers()[TABLE[name]].shape[1]
    with pytest.raises(UserError, match=rf"{TABLE[name]} has shape \(13, {width}\).*expects \(11, {width}\)"):
        backbone.load_transformers(backbone_of(name, 13).to_transformers())


def test_nothing_is_loaded_when_something_does_not_fit(pair, name):
    backbone, weights = pair
    before = {key: value.clone() for key, value in backbone.to_transformers().items()}
    with pytest.raises(UserError):
        backbone.load_transformers({**weights, FINAL_NORM[name]: torch.zeros(3)})
    assert all(torch.equal(value, before[key]) for key, value in backbone.to_transformers().items())
