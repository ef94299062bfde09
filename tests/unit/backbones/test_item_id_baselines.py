"""The item-ID baselines against torch's own layers with the same weights, and against the loss written out."""

import json

import numpy as np
import pytest
import torch
from helpers.models import BASELINES, backbone_of, padded, random_histories, run_params
from torch import nn

from apao.backbones.base import BACKBONES
from apao.codes.itemcodes import ItemCodes
from apao.errors import UserError
from apao.training.loop import Training
from apao.training.scoring import score_batch

VOCABULARY = 30
HISTORIES = [[5, 9, 12, 15], [3, 8, 11, 18, 4, 9, 13, 16, 5, 7], [6], [4, 4, 4, 29]]


def torch_states(backbone, tokens):
    """States (L, D) after each of the tokens (L,), by torch's layers."""
    items = backbone.embedding.weight[tokens]
    if backbone.params.type == "gru4rec":
        params = backbone.params
        stack = nn.GRU(params.embedding, params.hidden, params.layers)
        ours = [value for layer in backbone.layers for value in layer.parameters()]
        for theirs, value in zip(stack.parameters(), ours, strict=True):
            theirs.copy_(value)
        return stack(items)[0]
    width = backbone.params.hidden
    x = items * width**0.5 + backbone.positions.weight[: len(tokens)]
    hidden_ahead = torch.ones(len(tokens), len(tokens)).triu(1).bool()
    for ours in backbone.layers:
        theirs = nn.TransformerEncoderLayer(
            width, backbone.params.heads, dim_feedforward=width, dropout=0.0, layer_norm_eps=1e-8, norm_first=True
        )
        pairs = {
            "self_attn.in_proj_": ours.qkv,
            "self_attn.out_proj.": ours.out,
            "linear1.": ours.first,
            "linear2.": ours.second,
            "norm1.": ours.attention_norm,
            "norm2.": ours.feed_norm,
        }
        theirs.load_state_dict(
            {f"{name}{part}": getattr(o, part) for name, o in pairs.items() for part in ("weight", "bias")}
        )
        x = theirs(x[:, None], src_mask=hidden_ahead)[:, 0]
    return nn.functional.layer_norm(x, (width,), backbone.norm.weight, backbone.norm.bias, 1e-8)


@pytest.mark.parametrize("name", BASELINES)
@torch.no_grad()
def test_states_are_those_of_torchs_layers(name):
    """After the history, after the target, and after candidates fed in one pass or token by token."""
    backbone = backbone_of(name, VOCABULARY, seed=1)
    codes = torch.randint(3, VOCABULARY, (len(HISTORIES), 3, 4), generator=torch.Generator().manual_seed(0))
    context = backbone.encode(padded(HISTORIES), codes[:, 0], codes)
    past, stepped = None, []
    for token in codes.split(1, dim=-1):
        hidden, past = backbone.extend(context, token, past)
        stepped.append(hidden)
    for i, history in enumerate(HISTORIES):
        for c, code in enumerate(codes[i]):
            expected = torch_states(backbone, torch.cat([torch.tensor(history), code]))[len(history) - 1 :]
            assert expected.std() > 0.1
            for found in (context.after[i, c], torch.cat(stepped, dim=2)[i, c]):
                torch.testing.assert_close(found, expected[1:], atol=1e-5, rtol=1e-4)
            if c == 0:
                torch.testing.assert_close(context.along[i], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", BASELINES)
@torch.no_grad()
def test_logits_are_products_with_the_embeddings(name):
    backbone = backbone_of(name, VOCABULARY, seed=1)
    context = backbone.encode(padded(HISTORIES))
    for state, logits in zip(context.start, backbone.logits(context.start), strict=True):
        vector = state if name == "sasrec" else backbone.projection.weight @ state + backbone.projection.bias
        torch.testing.assert_close(logits, (backbone.embedding.weight * vector).sum(1), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize("name", BASELINES)
def test_the_loss_is_cross_entropy_over_all_items(name, pack):
    """Of every item but a user's first, after the up to three items before it, by a softmax over the vocabulary."""
    histories = random_histories([5, 9, 4, 3], 20)
    codes = ItemCodes(np.arange(20)[:, None])
    objective = {"type": "ce", "eos": False}
    params = run_params(name, objective, sizes={"pack": pack, "max_history": 3, "dropout": 0.0})
    training = Training("toy/run", params, histories, codes, torch.device("cpu"))
    backbone, total, count = training.backbone, 0.0, 0
    (epoch,) = training.sampler.epoch(10**6, 10**6, torch.Generator().manual_seed(0))
    for part in epoch.parts:
        scores = score_batch(backbone, part, False, training.statistics)
        total += training.objective(scores, training.state).loss.item() * len(part)
        count += len(part)
    expected = []
    for user in range(histories.users):
        items = histories.items[histories.offsets[user] : histories.offsets[user + 1]][:-2]
        tokens = torch.as_tensor(codes.tokens[items, 0])
        for place in range(1, len(tokens)):
            with torch.no_grad():
                state = torch_states(backbone, tokens[max(0, place - 3) : place])[-1]
                expected.append(-backbone.logits(state).log_softmax(-1)[tokens[place]].item())
    assert count == len(expected)
    assert total / count == pytest.approx(np.mean(expected), rel=1e-5)


@pytest.mark.parametrize("name", BASELINES)
@torch.no_grad()
def test_dropout_acts_in_training_only(name):
    backbone = backbone_of(name, VOCABULARY, dropout=0.5)
    still = [backbone.eval().encode(padded(HISTORIES)).start for _ in range(2)]
    moving = [backbone.train().encode(padded(HISTORIES)).start for _ in range(2)]
    assert torch.equal(*still) and not torch.equal(*moving)


@torch.no_grad()
def test_more_tokens_than_positions_are_refused():
    backbone = backbone_of("sasrec", VOCABULARY, positions=6)
    fits, code = torch.tensor([[3, 4, 5, 6]]), torch.tensor([[[7, 8]]])
    hidden, past = backbone.extend(backbone.encode(fits), code)
    assert torch.equal(hidden, backbone.encode(fits, candidates=code).after)
    refused = pytest.raises(UserError, match=r"has 6 positions, too few for 7 tokens .* set positions to 7 or more")
    with refused:
        backbone.encode(torch.tensor([[3, 4, 5, 6, 7, 8, 9]]))
    with refused:
        backbone.encode(fits, torch.tensor([[7, 8, 9]]))
    with refused:
        backbone.extend(backbone.encode(fits), code[..., :1], past)


def test_heads_divide_the_width():
    with pytest.raises(ValueError, match=r"hidden 10 must be a multiple of heads \(4\)"):
        BACKBONES["sasrec"](type="sasrec", hidden=10, heads=4)


@pytest.mark.parametrize("name", BASELINES)
def test_the_config_gives_back_the_sizes(name):
    params = backbone_of(name, VOCABULARY, dropout=0.3).params
    config = params.transformers_config(VOCABULARY)
    assert BACKBONES[name].from_transformers_config(json.loads(json.dumps(config))) == params
    assert config["model_type"] == name and "architectures" not in config
    del config["hidden_size"]
    with pytest.raises(UserError, match=r"hidden_size: expected a whole number from 1 to .*, but it is missing"):
        BACKBONES[name].from_transformers_config(config)


@pytest.mark.parametrize("name", BASELINES)
def test_weights_of_others_are_refused(name):
    backbone = backbone_of(name, VOCABULARY)
    with pytest.raises(UserError, match="do not belong to this backbone"):
        backbone.load_transformers(backbone_of("llama", VOCABULARY).to_transformers())
    with pytest.raises(UserError, match=r"embedding.weight has shape \(31, .*expects \(30, "):
        backbone.load_transformers(backbone_of(name, VOCABULARY + 1).to_transformers())
