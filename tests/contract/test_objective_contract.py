"""Contract of ``objectives.base``, for every registered objective with its values in params.yaml."""

import json
import sys
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.models import backbone_of, histories_of, random_codes, run_params
from pydantic import ValidationError

from apao.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from apao.codes.statistics import CodeStatistics
from apao.codes.trie import Trie
from apao.objectives.base import OBJECTIVES, Objective, Scores
from apao.training.batches import Examples, ExampleSampler
from apao.training.loop import Training
from apao.training.scoring import score_batch

CPU = torch.device("cpu")
CODES = random_codes(24, 3, 4)
EMBEDDINGS = np.random.default_rng(0).normal(size=(24, 8)).astype(np.float32)
# Item i is followed by item i + 1, so that there is something to learn.
HISTORIES = histories_of([[(start + i) % 24 for i in range(7)] for start in range(24)])


@pytest.fixture(params=list(OBJECTIVES))
def objective(request, params) -> Objective:
    """The objective's entry in params.yaml, with few negatives."""
    found = params.objectives[request.param]
    few = {"negatives": 5} if "negatives" in type(found).model_fields else {}
    return type(found).model_validate({**found.model_dump(), "tuned": {}, **few})


def settings_of(objective):
    """The objective's entry, and one per other value of its switches (fields that are bool or a choice of words).

    Values that the objective refuses, since they would have no effect, are left out.
    """
    variants = [objective]
    for name, field in type(objective).model_json_schema()["properties"].items():
        values = [True, False] if field.get("type") == "boolean" else field.get("enum", [])
        for value in values:
            if value != getattr(objective, name):
                with suppress(ValidationError):
                    variants.append(type(objective).model_validate({**objective.model_dump(), name: value}))
    return variants


def scores_of(objective: Objective, seed: int = 0) -> tuple[Scores, torch.nn.Module]:
    """Scores of a real batch by a real backbone, with the inputs that the objective declares in ``needs``."""
    trie = Trie.of(CODES)
    examples = Examples(HISTORIES, CODES, 5, trie)
    needs = objective.needs()
    sampler = ExampleSampler(examples, HISTORIES, needs.negatives, 10**6)
    rows = np.arange(seed, seed + 12)
    (batch,) = sampler.parts(sampler.users[rows], sampler.positions[rows], torch.Generator().manual_seed(seed))
    backbone = backbone_of("llama", len(CODES.vocabulary), seed)
    embeddings = EMBEDDINGS if needs.embeddings else None
    catalogue = CodeStatistics(CODES, trie, HISTORIES.training_targets(), embeddings)
    scores = score_batch(backbone, batch, objective.eos, catalogue)
    if needs.reference:
        with torch.no_grad():
            other = score_batch(backbone_of("llama", len(CODES.vocabulary), seed + 100), batch, False, catalogue)
        scores = replace(scores, reference=other)
    return scores, backbone


def test_named_documented_and_in_params(objective, params):
    cls = type(objective)
    assert cls.__dict__["__doc__"] and sys.modules[cls.__module__].__doc__
    fields = cls.model_json_schema()["properties"]
    assert not [name for name, field in fields.items() if name != "type" and not field.get("description")]
    assert [name for name, entry in params.objectives.items() if entry.type == objective.type]


def test_parameters_survive_json(objective):
    for variant in settings_of(objective):
        again = type(objective).model_validate(json.loads(variant.model_dump_json()))
        assert again == variant and again.model_dump_json() == variant.model_dump_json()


def test_negatives_are_asked_for_where_there_is_a_number_of_them(objective):
    assert objective.needs().negatives == getattr(objective, "negatives", 0)


def test_a_reference_comes_from_a_trained_start(objective, params):
    """An objective with a reference starts from it, and that run is in params.yaml."""
    assert not objective.needs().reference or objective.start is not None
    assert objective.start is None or objective.start.split("+")[0] in params.objectives


def test_loss_gradient_and_terms(objective):
    for variant in settings_of(objective):
        scores, backbone = scores_of(variant)
        loss, terms, _ = variant(scores, variant.initial_state(CODES.levels, CPU))
        assert loss.shape == () and loss.isfinite() and loss.dtype == torch.float32
        assert terms and all(isinstance(name, str) for name in terms)
        for value in terms.values():
            assert value.shape == () and not value.requires_grad and value.isfinite()
        loss.backward()
        gradients = [p.grad for p in backbone.parameters()]
        assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
        assert any(gradient.abs().sum() > 0 for gradient in gradients)


def test_an_eos_that_is_decoded_is_trained(objective):
    """Else codes are ranked by a probability of eos that no loss has changed."""
    for variant in settings_of(objective):
        if variant.trains_eos and not variant.softmax.legal_only:  # if only legal tokens count, eos has probability 1
            scores, _ = scores_of(variant)
            loss = variant(scores, variant.initial_state(CODES.levels, CPU)).loss
            (gradient,) = torch.autograd.grad(loss, [scores.eos_logits], allow_unused=True)
            assert gradient is not None and gradient.abs().sum() > 0, "use scores.eos_logp, or override trains_eos"


def test_pure(objective):
    """Equal inputs give equal outputs, and the inputs are not changed."""
    for variant in settings_of(objective):
        scores, _ = scores_of(variant)
        state = variant.initial_state(CODES.levels, CPU)
        before = {name: value.detach().clone() for name, value in state.items()}
        first, second = variant(scores, state), variant(scores, state)
        assert torch.equal(first.loss, second.loss)
        assert first.terms.keys() == second.terms.keys() and first.state.keys() == second.state.keys() == before.keys()
        assert all(torch.equal(first.terms[name], second.terms[name]) for name in first.terms)
        assert all(torch.equal(first.state[name], second.state[name]) for name in before)
        assert all(torch.equal(state[name], before[name]) for name in before)


def test_mean_over_the_batch(objective):
    """Neither the order of the examples nor duplicating the batch changes the loss."""
    scores, _ = scores_of(objective)
    state = objective.initial_state(CODES.levels, CPU)
    expected = objective(scores, state).loss
    for order in (torch.randperm(12, generator=torch.Generator().manual_seed(0)), torch.arange(24) % 12):
        torch.testing.assert_close(objective(reordered(scores, order), state).loss, expected)


def reordered(scores: Scores, order: torch.Tensor) -> Scores:
    names = ("logits", "targets", "prefixes", "eos_logits", "negative_logp", "negative_prefixes")
    rows = {name: value[order] for name in names if (value := getattr(scores, name)) is not None}
    reference = None if scores.reference is None else reordered(scores.reference, order)
    return replace(scores, reference=reference, **rows)


def test_state_survives_a_checkpoint(objective, tmp_path):
    """Three steps give the same with and without a checkpoint of the state in between."""
    for variant in settings_of(objective):
        kept = read = variant.initial_state(CODES.levels, CPU)
        for step in range(3):
            scores, _ = scores_of(variant, seed=step)
            path = tmp_path / "state.safetensors"
            save_checkpoint(path, Checkpoint({"objective": dict(read)}, {}), "state")
            read = load_checkpoint(path, "state").tensors.get("objective", {})
            one, other = variant(scores, kept), variant(scores, read)
            assert torch.equal(one.loss, other.loss)
            kept, read = one.state, other.state
            assert all(torch.equal(kept[name], read[name]) for name in kept)


@pytest.mark.parametrize("backbone", ["tiger", "llama"])
def test_training_lowers_it(objective, backbone, tmp_path):
    """A few epochs of the real loop on a deterministic sequence lower the loss, and all terms are finite."""
    params = run_params(backbone, {**objective.model_dump(), "tuned": {}}, epochs=4, lr=1e-2, batch_size=16)
    training = Training("toy", params, HISTORIES, CODES, CPU, embeddings=EMBEDDINGS)
    rows = training.fit(tmp_path / "checkpoint", "toy").history
    assert all(np.isfinite(value) for row in rows for value in row.values())
    assert {name.removeprefix("train_") for name in rows[0] if name.startswith("train_")} == {
        name.removeprefix("valid_") for name in rows[0] if name.startswith("valid_")
    }
    assert rows[-1]["train_loss"] < 0.9 * rows[0]["train_loss"]
    assert rows[-1]["valid_loss"] < rows[0]["valid_loss"]
