"""Contract of ``backbones.base``, for every registered backbone with the sizes of the small recipe."""

import itertools
import json
import sys

import pytest
import torch
from helpers.language_models import write_model
from helpers.models import padded, random_codes, random_histories, shaken
from torch.nn.functional import cross_entropy

from apao.backbones.base import BACKBONES, Backbone, BackboneParams
from apao.backbones.softmax import token_logp
from apao.codes.trie import Trie
from apao.codes.vocabulary import EOS
from apao.training.batches import Batch, Examples
from apao.training.packing import PackedSampler
from apao.training.scoring import join_logp, score_batch

VOCABULARY = 19
HISTORIES = [[5, 9, 12, 15], [3, 8, 11, 18, 4, 9, 13, 16, 5, 7], [6], [4, 4, 4, 4, 4, 4, 4]]


PRETRAINED = {
    "hf-causal": {"kind": "llama"},
    "hf-causal-gpt2": {"kind": "gpt2"},
    "hf-causal-prompt": {"kind": "llama", "prompt": "What comes next after :"},
}
"""Backbones of a model that the user has, which therefore have no entry in the project's params.yaml."""


@pytest.fixture(params=sorted({*BACKBONES, *PRETRAINED}), scope="module")
def sizes(request, params, tmp_path_factory) -> BackboneParams:
    """The backbone's entry in params.yaml, or one of a tiny model."""
    if request.param not in PRETRAINED:
        return params.recipes["small"].backbones[request.param]
    entry = {**PRETRAINED[request.param]}
    folder = write_model(tmp_path_factory.mktemp("model"), entry.pop("kind"))
    return BACKBONES["hf-causal"](type="hf-causal", model=str(folder), **entry)


@pytest.fixture(scope="module")
def backbone(sizes) -> Backbone:
    """A backbone in evaluation mode, with weights redrawn so that attention is not nearly uniform."""
    torch.manual_seed(0)
    backbone = sizes.build(VOCABULARY).eval()
    shaken(backbone)
    return backbone


@pytest.fixture
def candidates():
    return torch.randint(3, VOCABULARY, (len(HISTORIES), 6, 5), generator=torch.Generator().manual_seed(0))


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-4)


def test_named_documented_and_in_params(sizes, params):
    cls = type(sizes)
    assert cls.__dict__["__doc__"] and sys.modules[cls.__module__].__doc__
    assert type(sizes.build(VOCABULARY)).__dict__["__doc__"]
    for recipe in params.recipes.values() if sizes.type not in PRETRAINED else ():
        assert recipe.backbones[sizes.type].type == sizes.type
    assert isinstance(cls.release_decodes_eos, bool) and isinstance(sizes.packs, bool)


def test_parameters_survive_json(sizes):
    assert type(sizes).model_validate(json.loads(sizes.model_dump_json())) == sizes
    config = json.loads(json.dumps(sizes.transformers_config(VOCABULARY)))
    rebuilt = type(sizes).from_transformers_config(config)
    assert rebuilt.transformers_config(VOCABULARY) == sizes.transformers_config(VOCABULARY)
    assert config["vocab_size"] == VOCABULARY


def test_building_follows_the_seed(sizes):
    built = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        built.append(sizes.build(VOCABULARY).to_transformers())
    assert all(torch.equal(built[0][name], built[1][name]) for name in built[0])
    assert any(not torch.equal(built[0][name], built[2][name]) for name in built[0])


@torch.no_grad()
def test_shapes(backbone, candidates):
    context = backbone.encode(padded(HISTORIES))
    hidden, past = backbone.extend(context, candidates)
    assert hidden.shape[:3] == candidates.shape and hidden.shape[3] == context.start.shape[1]
    assert backbone.logits(hidden).shape == (*candidates.shape, VOCABULARY)
    assert backbone.logits(context.start).shape == (len(HISTORIES), VOCABULARY)
    # Beam search reorders the cache along its second axis.
    assert past and {value.shape[:2] for entry in past for value in entry} == {candidates.shape[:2]}
    assert backbone.logits(hidden).isfinite().all()


@torch.no_grad()
def test_evaluation_is_deterministic(backbone, candidates):
    twice = [backbone.extend(backbone.encode(padded(HISTORIES)), candidates)[0] for _ in range(2)]
    assert torch.equal(*twice)


@torch.no_grad()
def test_dropout_is_for_training_only(sizes, candidates):
    """In evaluation a backbone with dropout is the one without; in training every way of reading draws masks."""
    if sizes.type in PRETRAINED or "dropout" not in type(sizes).model_fields:
        pytest.skip("has none, or the model's own or LoRA's")
    plain, dropping = (sizes.model_copy(update={"dropout": p}).build(VOCABULARY) for p in (0.0, 0.5))
    dropping.load_state_dict(plain.state_dict())
    tokens, starts = padded(HISTORIES), torch.zeros(len(HISTORIES), 1, dtype=torch.long)

    def outputs(backbone):
        context = backbone.encode(tokens)
        extended, _ = backbone.extend(context, candidates)
        packed = [backbone.read(tokens, starts, 1)[0]] if sizes.packs else []
        return [context.start, extended, *packed]

    expected = outputs(plain.eval())
    for found in (outputs(plain.train()), outputs(dropping.eval())):
        assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
    dropping.train()
    assert not any(torch.equal(*pair) for pair in zip(outputs(dropping), outputs(dropping), strict=True))


@torch.no_grad()
def test_step_by_step_with_the_cache_equals_a_single_pass(backbone, candidates):
    context = backbone.encode(padded(HISTORIES))
    expected, whole = backbone.extend(context, candidates)
    for cuts in ([1, 1, 1, 1, 1], [2, 3], [4, 1]):
        past, found = None, []
        for part in candidates.split(cuts, dim=-1):
            hidden, past = backbone.extend(context, part, past)
            found.append(hidden)
        close(torch.cat(found, dim=2), expected)
        for ours, theirs in zip(past, whole, strict=True):
            for value, other in zip(ours, theirs, strict=True):
                close(value, other)


@torch.no_grad()
def test_reordered_cache_is_that_of_the_parents(backbone, candidates):
    """As in beam search: some candidates are dropped, others branch."""
    context = backbone.encode(padded(HISTORIES))
    parents = torch.tensor([[0, 0, 3], [5, 1, 1], [2, 2, 2], [4, 0, 5]])
    rows = torch.arange(len(parents))[:, None]
    follow = torch.randint(3, VOCABULARY, (*parents.shape, 2), generator=torch.Generator().manual_seed(1))
    _, past = backbone.extend(context, candidates)
    found, _ = backbone.extend(context, follow, backbone.reorder(past, parents))
    whole = torch.cat([candidates[rows, parents], follow], dim=-1)
    expected, _ = backbone.extend(context, whole)
    close(found, expected[:, :, -2:])


@torch.no_grad()
def test_a_candidate_sees_no_other(backbone, candidates):
    context = backbone.encode(padded(HISTORIES))
    before, _ = backbone.extend(context, candidates)
    changed = candidates.clone()
    changed[:, 2] = (changed[:, 2] - 3 + 7) % (VOCABULARY - 3) + 3
    after, _ = backbone.extend(context, changed)
    others = [0, 1, 3, 4, 5]
    assert (after[:, 2] - before[:, 2]).abs().max() > 0.01
    close(after[:, others], before[:, others])
    alone, _ = backbone.extend(context, candidates[:, 4:5])
    close(alone, before[:, 4:5])


@torch.no_grad()
def test_a_token_sees_no_later_one(backbone, candidates):
    context = backbone.encode(padded(HISTORIES))
    before, _ = backbone.extend(context, candidates)
    changed = candidates.clone()
    changed[..., 3] = (changed[..., 3] - 3 + 5) % (VOCABULARY - 3) + 3
    after, _ = backbone.extend(context, changed)
    close(after[..., :3, :], before[..., :3, :])
    assert (after[..., 3:, :] - before[..., 3:, :]).abs().max() > 0.01


@torch.no_grad()
def test_padding_changes_nothing(backbone, candidates):
    batched = backbone.encode(padded(HISTORIES))
    wider = backbone.encode(torch.nn.functional.pad(padded(HISTORIES), (0, 9)))
    expected, _ = backbone.extend(batched, candidates)
    close(wider.start, batched.start)
    close(backbone.extend(wider, candidates)[0], expected)
    for i, history in enumerate(HISTORIES):
        alone = backbone.encode(torch.tensor([history]))
        close(alone.start, batched.start[i : i + 1])
        close(backbone.extend(alone, candidates[i : i + 1])[0], expected[i : i + 1])


@torch.no_grad()
def test_order_and_content_of_the_history_matter(backbone):
    history = [5, 9, 12, 15, 6, 7]
    changes = [history[::-1], [*history[:-1], 8], [8, *history[1:]], history[1:]]
    base = backbone.logits(backbone.encode(torch.tensor([history])).start)
    for changed in changes:
        other = backbone.logits(backbone.encode(torch.tensor([changed])).start)
        assert (base - other).abs().max() > 0.01


def test_every_weight_gets_a_gradient(sizes, backbone, candidates):
    backbone.zero_grad()
    context = backbone.encode(padded(HISTORIES))
    loss = backbone.logits(backbone.extend(context, candidates)[0]).logsumexp(-1).mean()
    (loss + backbone.logits(context.start).logsumexp(-1).mean()).backward()
    for name, parameter in backbone.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    backbone.zero_grad()


@torch.no_grad()
def test_candidates_in_encode_equal_candidates_in_extend(backbone, candidates):
    """Target and candidates are read by ``encode``, as in training, or by ``extend``, as in decoding."""
    expected, _ = backbone.extend(backbone.encode(padded(HISTORIES)), candidates)
    alone = backbone.encode(padded(HISTORIES))
    for fed, drawn in itertools.product((0, 2, 5), (None, 1, 3)):
        target = candidates[:, 0, :fed]
        together = backbone.encode(padded(HISTORIES), target, None if drawn is None else candidates[:, 1:, :drawn])
        close(together.start, alone.start)
        close(together.along[:, 1:], expected[:, 0, :fed])
        if drawn is None:
            assert together.after is None
        else:
            close(together.after, expected[:, 1:, :drawn])
        # The context serves further candidates.
        close(backbone.extend(together, candidates)[0], expected)


@torch.no_grad()
def test_scoring_of_candidates_and_targets_agrees(backbone, candidates):
    many = scored(backbone, candidates)
    for c in range(candidates.shape[1]):
        along = backbone.encode(padded(HISTORIES), candidates[:, c]).along
        assert along.shape[1] == candidates.shape[2] + 1
        close(token_logp(backbone.logits(along[:, :-1]), candidates[:, c]), many[:, c])
    close(scored(backbone, candidates[..., :1]), many[..., :1])


def test_weights_travel_under_their_foreign_names(sizes, backbone, candidates):
    other = sizes.build(VOCABULARY).eval()
    other.load_transformers({name: value.clone() for name, value in backbone.to_transformers().items()})
    with torch.no_grad():
        both = [m.extend(m.encode(padded(HISTORIES)), candidates)[0] for m in (backbone, other)]
    assert torch.equal(*both)


def scored(backbone, candidates):
    """Token log-probabilities of candidates after ``HISTORIES``."""
    fed = candidates[..., :-1] if candidates.shape[2] > 1 else None
    context = backbone.encode(padded(HISTORIES), candidates=fed)
    return join_logp(backbone, backbone.logits(context.start), candidates[..., 0], context.after, candidates[..., 1:])


def test_bf16_autocast_is_close_to_fp32(backbone, candidates):
    with torch.no_grad():
        expected = scored(backbone, candidates)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = scored(backbone, candidates)
    assert found.dtype == torch.float32 and 0 < (found - expected).abs().mean() < 0.1


def test_learns_a_deterministic_sequence(sizes):
    """Item i is followed by item i + 1 in every history; a few dozen steps suffice to predict every code."""
    torch.manual_seed(0)
    codes = torch.tensor([[3 + i % 4, 7 + i // 4] for i in range(8)])
    model = sizes.build(11)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    items = (torch.arange(8)[:, None] + torch.arange(4)) % 8
    history, targets = codes[items[:, :3]].flatten(1), codes[items[:, 3]]
    wanted = torch.cat([targets, torch.full((8, 1), EOS)], dim=1)
    for step in range(200):
        logits = model.train().logits(model.encode(history, targets).along)
        loss = cross_entropy(logits.flatten(0, 1), wanted.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 10 == 9:
            with torch.no_grad():
                logits = model.eval().logits(model.encode(history, targets).along)
            if torch.equal(logits.argmax(-1), wanted):
                return
    raise AssertionError(f"the training loss is still {loss.item():.3f}")


def test_packed_reading_is_example_by_example(sizes):
    """Backbones that can pack give the same scores to a packed example as to the example alone."""
    if "pack" not in type(sizes).model_fields:
        pytest.skip(f"{sizes.type} does not pack")
    packing = sizes.model_copy(update={"pack": True, "max_history": 3})
    assert packing.packs and not sizes.model_copy(update={"pack": False}).packs
    codes = random_codes(20, 3, 4)
    histories = random_histories([4, 9, 3, 6], codes.items)
    model = packing.build(len(codes.vocabulary)).eval()
    shaken(model)
    sampler = PackedSampler(Examples(histories, codes, 3, Trie.of(codes)), histories, 2, budget=200)
    for effective in sampler.epoch(10**6, 6, torch.Generator().manual_seed(0)):
        for packed in effective.parts:
            with torch.no_grad():
                found = score_batch(model, packed, True, None)
            for i, (row, slot) in enumerate(zip(packed.row, packed.slot, strict=True)):
                history = packed.tokens[row, : packed.starts[row, slot] + 1]
                target = packed.targets[i : i + 1], packed.prefixes[i : i + 1]
                drawn = packed.negatives[row, slot][None], packed.negative_prefixes[row, slot][None]
                alone = Batch(history[None], *target, *drawn)
                with torch.no_grad():
                    expected = score_batch(model, alone, True, None)
                close(found.logits[i : i + 1], expected.logits)
                close(found.negative_logp[i : i + 1], expected.negative_logp)
