"""Both backbones against the ``transformers`` classes whose weights they exchange."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from helpers.models import BOTH, backbone_of, padded, shaken
from safetensors.torch import load_file, save_file

from apao.backbones.base import BACKBONES
from apao.backbones.llama import rotate
from apao.backbones.tiger import relative_buckets
from apao.codes.itemcodes import ItemCodes
from apao.codes.vocabulary import EOS

HUGGING_FACE = {"tiger": transformers.T5ForConditionalGeneration, "llama": transformers.LlamaForCausalLM}
VOCABULARY, LEVELS, CANDIDATES = 23, 4, 5
# One item; a few; and more than 128 tokens, beyond which T5's distances share a bucket.
LENGTHS = (4, 12, 28, 168)


@pytest.fixture(scope="module")
def batch():
    """Histories of very different lengths in one padded batch, and codes to score after each."""
    rng = np.random.default_rng(0)
    histories = [rng.integers(3, VOCABULARY, length).tolist() for length in LENGTHS]
    return histories, torch.tensor(rng.integers(3, VOCABULARY, (len(LENGTHS), CANDIDATES, LEVELS)))


def ours(backbone, histories, candidates):
    """Logits (B, C, T + 1, V) from a single encoding of the padded histories."""
    context = backbone.encode(padded(histories))
    hidden, _ = backbone.extend(context, candidates)
    start = context.start[:, None, None].expand(-1, candidates.shape[1], -1, -1)
    return backbone.logits(torch.cat([start, hidden], dim=2))


def theirs(model, name, histories, candidates):
    """The same by ``transformers``, padded as in the release and with the history repeated for every candidate."""
    batch, count, levels = candidates.shape
    codes = candidates.flatten(0, 1)
    if name == "tiger":
        inputs = padded([[*history, EOS] for history in histories]).repeat_interleave(count, 0)
        decoder_inputs = torch.cat([torch.zeros(len(codes), 1, dtype=torch.long), codes], dim=1)
        output = model(input_ids=inputs, attention_mask=(inputs != 0).long(), decoder_input_ids=decoder_inputs)
        return output.logits.unflatten(0, (batch, count))
    width = max(map(len, histories))
    left = torch.tensor([[0] * (width - len(history)) + history for history in histories]).repeat_interleave(count, 0)
    inputs = torch.cat([left, codes], dim=1)
    output = model(input_ids=inputs, attention_mask=(inputs != 0).long())
    return output.logits[:, -levels - 1 :].unflatten(0, (batch, count))


@pytest.mark.parametrize("name", BOTH)
@torch.no_grad()
def test_our_weights_in_their_class(name, batch, tmp_path):
    backbone = backbone_of(name, VOCABULARY, seed=1)
    save_file(backbone.to_transformers(), tmp_path / "model.safetensors", metadata={"format": "pt"})
    config = backbone.params.transformers_config(VOCABULARY)
    (tmp_path / "config.json").write_text(json.dumps(config))
    model, report = HUGGING_FACE[name].from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    expected = theirs(model.eval(), name, *batch)
    assert expected.std() > 0.2  # Random enough for an error to show.
    torch.testing.assert_close(ours(backbone, *batch), expected, atol=1e-4, rtol=0)


@pytest.fixture(params=BOTH)
def both(request, tmp_path):
    """A model of ``transformers``, and ours with the weights and sizes that it saved."""
    name = request.param
    sizes = BACKBONES[name](type=name).transformers_config(VOCABULARY)
    if name == "tiger":
        sizes |= {"d_model": 20, "d_ff": 30, "d_kv": 8, "num_heads": 3, "num_layers": 3, "num_decoder_layers": 2}
    else:
        sizes |= {"hidden_size": 24, "intermediate_size": 40, "num_attention_heads": 3, "num_key_value_heads": 3}
        sizes |= {"num_hidden_layers": 3}
    model = HUGGING_FACE[name](transformers.AutoConfig.for_model(**sizes)).eval()
    shaken(model, seed=2)
    model.save_pretrained(tmp_path)

    params = BACKBONES[name].from_transformers_config(json.loads((tmp_path / "config.json").read_text()))
    backbone = params.build(VOCABULARY).eval()
    backbone.load_transformers(load_file(tmp_path / "model.safetensors"))
    return model, backbone


@torch.no_grad()
def test_their_weights_in_our_class(both, batch):
    model, backbone = both
    assert sum(p.numel() for p in backbone.parameters()) == model.num_parameters()
    expected = theirs(model, backbone.params.type, *batch)
    torch.testing.assert_close(ours(backbone, *batch), expected, atol=1e-4, rtol=0)


def test_gradients_of_training_are_theirs(both, batch):
    """A loss on the logits of target and candidates, by the same pass as in training."""
    model, backbone = both
    histories, codes = batch
    weights = torch.randn(*codes.shape[:2], LEVELS + 1, VOCABULARY, generator=torch.Generator().manual_seed(0))
    weights[:, 1:, 0] = 0  # The first token of all candidates is scored once, with the target.
    (theirs(model, backbone.params.type, *batch) * weights).sum().backward()

    context = backbone.encode(padded(histories), codes[:, 0], codes[:, 1:])
    loss = (backbone.logits(context.along) * weights[:, 0]).sum()
    (loss + (backbone.logits(context.after) * weights[:, 1:, 1:]).sum()).backward()
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.copy_(parameter.grad)
    found = backbone.to_transformers()  # the gradients, under the names of transformers
    expected = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert (found[name] - gradient).abs().max() < 1e-4 * gradient.abs().max(), name


def test_gradient_of_the_rotation():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    angles = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: rotate(x, angles.cos(), angles.sin()), (x,))


@pytest.mark.parametrize("name", BOTH)
def test_the_config_gives_back_the_sizes(name):
    params = backbone_of(name, VOCABULARY).params
    assert BACKBONES[name].from_transformers_config(params.transformers_config(VOCABULARY)) == params


@pytest.mark.parametrize("bidirectional", [True, False])
def test_relative_buckets_are_those_of_t5(bidirectional):
    t5 = transformers.models.t5.modeling_t5.T5Attention
    distance = torch.arange(-300, 301)
    expected = t5._relative_position_bucket(distance, bidirectional, num_buckets=32, max_distance=128)
    assert torch.equal(relative_buckets(distance, bidirectional), expected)


@pytest.mark.parametrize("name", BOTH)
def test_fresh_weights_are_spread_as_theirs(name):
    params = BACKBONES[name](type=name)
    config = transformers.AutoConfig.for_model(**params.transformers_config(500))
    torch.manual_seed(0)
    theirs, ours = HUGGING_FACE[name](config).state_dict(), params.build(500).to_transformers()
    for key, value in ours.items():
        if value.dim() == 1:
            assert torch.equal(value, theirs[key]), key
        else:
            assert value.std().item() == pytest.approx(theirs[key].std().item(), rel=0.2), key
            assert abs(value.mean().item()) < 5 * value.std().item() * value.numel() ** -0.5, key


def office_vocabulary():
    """Number of tokens of the released Office codes, from a copy if there is one, else the known number."""
    mirror = os.environ.get("APAO_MIRROR")
    if mirror is None:
        return 1023
    path = next(Path(mirror).rglob("Office.index.rq-kmeans.json"))
    return len(ItemCodes.from_strings(json.loads(path.read_text()), path.name).vocabulary)


@pytest.mark.parametrize(("name", "millions"), [("tiger", 4.59), ("llama", 3.80)])
def test_default_sizes_are_the_papers(name, millions):
    with torch.device("meta"):
        backbone = BACKBONES[name](type=name).build(office_vocabulary())
    assert round(sum(p.numel() for p in backbone.parameters()) / 1e6, 2) == millions
