"""Values that the authors' own classes computed on a small catalogue, through the code that training uses.

``expected.json`` has 40 users, 400 items with 67 tokens, 12 training examples with 20 negatives each
and the beams of 8 test users; the weights are random, in evaluation mode.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import histories_of

from apao.backbones.base import BACKBONES
from apao.codes.catalogue import Catalogue, legal_continuations
from apao.codes.itemcodes import ItemCodes, code_string
from apao.codes.trie import Trie
from apao.decoding.beam import beam_search
from apao.objectives.base import OBJECTIVES
from apao.training.batches import Examples
from apao.training.loop import score_batch
from apao.training.packing import PackedSampler, Rows

FOLDER = Path(__file__).parent
FILES = {"tiger": "t5-tiny", "llama": "llama-tiny"}
EXPECTED = json.loads((FOLDER / "expected.json").read_text())
HISTORY = 20
CODES = ItemCodes.from_strings(EXPECTED["codes"], "expected.json")
TRIE = Trie.of(CODES)
CATALOGUE = Catalogue(TRIE.prefix_counts, legal=legal_continuations(TRIE))
HISTORIES = histories_of([EXPECTED["interactions"][str(user)] for user in range(len(EXPECTED["interactions"]))])
ETAS = ["0.0", "0.0005", "0.5"]
close = pytest.approx


def load(name):
    """The backbone with the authors' weights."""
    config = json.loads((FOLDER / f"{FILES[name]}.config.json").read_text())
    backbone = BACKBONES[name].from_transformers_config(config).build(len(CODES.vocabulary))
    backbone.load_transformers(load_file(FOLDER / f"{FILES[name]}.safetensors"))
    return backbone.eval()


def code_index(items):
    """Indices of the items' codes among the distinct ones, which is how negatives are drawn."""
    return torch.as_tensor(CODES.code_of_item[np.array(items)])


def places():
    """User and position of every golden example, found by its history and target."""
    users = np.array([example["user"] for example in EXPECTED["examples"]])
    positions = []
    for example in EXPECTED["examples"]:
        row = EXPECTED["interactions"][str(example["user"])]
        (at,) = (
            i
            for i in range(1, len(row) - 2)
            if row[i] == example["target"] and row[max(0, i - HISTORY) : i] == example["history"]
        )
        positions.append(at)
    return users, np.array(positions)


def scores_alone(name, objective):
    """Scores of the golden examples, one row an example."""
    examples = Examples(HISTORIES, CODES, HISTORY, torch.device("cpu"))
    negatives = code_index(EXPECTED["negatives"]) if objective.needs().negatives else None
    batch = examples.batch(*places(), negatives)
    return score_batch(load(name), batch, objective.eos, CATALOGUE)


def scores_packed(name, objective):
    """The same with every example read as the end of a packed row (llama)."""
    examples = Examples(HISTORIES, CODES, HISTORY, torch.device("cpu"))
    sampler = PackedSampler(examples, HISTORIES, negatives=0, budget=1)
    users, positions = places()
    first = HISTORIES.offsets[users] + np.maximum(0, positions - HISTORY)
    length = np.minimum(positions, HISTORY) + 1
    rows = sampler.batch(Rows(first, length, np.ones_like(length)), torch.Generator())
    batch = rows
    if objective.needs().negatives:
        tokens, prefixes = examples.codes_of(code_index(EXPECTED["negatives"]))
        batch = replace(rows, negatives=tokens[:, None], negative_prefixes=prefixes[:, None])
    return score_batch(load(name), batch, objective.eos, CATALOGUE)


WAYS = [
    pytest.param("tiger", scores_alone, id="tiger"),
    pytest.param("llama", scores_alone, id="llama"),
    pytest.param("llama", scores_packed, id="llama-packed"),
]


def golden(name):
    return EXPECTED["backbones"]["t5" if name == "tiger" else name]


def test_vocabulary_and_prefix_counts():
    assert {token: i for i, token in enumerate(CODES.vocabulary)} == EXPECTED["vocabulary"]
    assert list(TRIE.prefix_counts) == EXPECTED["valid_prefixes"]


@pytest.mark.parametrize(("name", "scores"), WAYS)
@torch.no_grad()
def test_token_log_probabilities_and_cross_entropy(name, scores):
    objective = OBJECTIVES["ce"](type="ce")
    said = scores(name, objective)
    found = torch.cat([said.target_logp, said.eos_logp[:, None]], dim=1)
    expected = torch.tensor(golden(name)["ce"]["token_logp"])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    outcome = objective(said, {})
    assert outcome.loss.item() == close(golden(name)["ce"]["loss"], abs=1e-4)
    assert outcome.terms["ce"].item() == close(golden(name)["ce"]["ce"], abs=1e-4)


@pytest.mark.parametrize("tau", sorted(EXPECTED["backbones"]["t5"]["msl"]))
@pytest.mark.parametrize(("name", "scores"), WAYS)
@torch.no_grad()
def test_msl(name, scores, tau):
    objective = OBJECTIVES["msl"](type="msl", tau=float(tau))
    loss = objective(scores(name, objective), {}).loss
    assert loss.item() == close(golden(name)["msl"][tau]["loss"], abs=1e-4)


@pytest.mark.parametrize("eta", ETAS)
@pytest.mark.parametrize("kind", ["apao-pointwise", "apao-pairwise"])
@pytest.mark.parametrize(("name", "scores"), WAYS)
@torch.no_grad()
def test_apao(name, scores, kind, eta):
    objective = OBJECTIVES[kind](type=kind, beta=EXPECTED["beta"], eta=float(eta))
    loss, terms, _ = objective(scores(name, objective), {})
    expected = golden(name)[kind][eta]
    assert loss.item() == close(expected["loss"], abs=1e-4)
    assert terms["ce"].item() == close(expected["ce"], abs=1e-4)
    for term, key in (("prefix_loss", "prefix_losses"), ("prefix_weight", "weights")):
        found = [terms[f"{term}_{m}"].item() for m in range(1, CODES.levels + 1)]
        assert found == close(expected[key], abs=1e-4)


@pytest.mark.parametrize("name", FILES)
def test_beams(name):
    expected = golden(name)["beam"]
    users = np.array(expected["users"])
    positions = HISTORIES.evaluation_targets("test")[users]
    batch = Examples(HISTORIES, CODES, HISTORY, torch.device("cpu")).batch(users, positions)
    backbone = load(name)
    with torch.no_grad():
        context = backbone.encode(batch.history)
    beams = beam_search(backbone, context, TRIE, expected["beam_size"], backbone.params.decodes_eos)
    spelled = {
        tuple(tokens): [code_string(level, int(code)) for level, code in enumerate(codes)]
        for tokens, codes in zip(CODES.distinct_tokens.tolist(), CODES.distinct, strict=True)
    }
    found = [[spelled[tuple(tokens)] for tokens in user] for user in beams.tokens.tolist()]
    assert found == expected["codes"]
    torch.testing.assert_close(beams.scores, torch.tensor(expected["scores"]), atol=1e-4, rtol=0)
