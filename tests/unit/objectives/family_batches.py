"""Small random batches over a real catalogue, as plain lists for the slow formulas and as tensors for ours."""

from dataclasses import dataclass, replace

import numpy as np
import slow_losses as slow
import torch
from gradients import LEAVES
from helpers.models import random_codes
from slow_families import Referred

from apao.codes.itemcodes import ItemCodes
from apao.codes.statistics import CodeStatistics
from apao.codes.trie import Trie
from apao.objectives.base import OBJECTIVES, Scores

LEVELS = (1, 2, 3, 6)
VARIANTS = [
    ("msl", {"tau": 2.0}),
    ("bear", {"form": "release", "beam": 2}),
    ("bear", {"form": "paper", "beam": 2}),
    ("dpo", {}),
    ("dmpo", {}),
    ("s-dpo", {}),
    ("ce+s-dpo", {}),
    ("front-greater", {}),
    ("frequency", {}),
    ("multi-target", {"pace": True, "c": 0.1}),
    ("multi-target", {"pace": False}),
    ("igd", {}),
    ("position", {}),
]
PREFERENCES = ("dpo", "dmpo", "s-dpo", "ce+s-dpo")


@dataclass
class Batch:
    """One batch in both forms.

    ``items`` are the token ids of every item, ``trained`` the training targets, ``leaves`` the tensors
    that require gradients.
    """

    items: list
    trained: list
    embeddings: list
    examples: list
    scores: Scores
    leaves: dict


def catalogue_of(codes, trained, embeddings):
    """Facts about the codes."""
    return CodeStatistics(codes, Trie.of(codes), trained, embeddings)


def batch_of(seed, levels=3, batch=3, negatives=5, eos=True, reference=False, codes=None, dtype=torch.float64):
    """14 items with few codes, so that prefixes and whole codes are shared, or the ``codes`` given."""
    rng = np.random.default_rng(seed)
    codes = codes or random_codes(14, levels, 3, seed)
    trained = rng.integers(0, codes.items, 20)
    embeddings = rng.normal(size=(codes.items, 4))
    chosen = codes.tokens[rng.integers(0, codes.items, batch)]
    rejected = codes.distinct_tokens[rng.integers(0, len(codes.distinct), (batch, negatives))]
    vocabulary = len(codes.vocabulary)

    def said():
        """Random scores of one model for the batch."""
        return [
            slow.Example(
                logits=rng.normal(0, 1.5, (codes.levels, vocabulary)).tolist(),
                eos_logits=rng.normal(0, 1.5, vocabulary).tolist(),
                target=chosen[i].tolist(),
                negatives=rejected[i].tolist(),
                negative_logp=(-rng.exponential(1.5, (negatives, codes.levels))).tolist(),
            )
            for i in range(batch)
        ]

    policy, frozen = said(), said()
    trie = Trie.of(codes)
    targets, others = torch.tensor(chosen), torch.tensor(rejected)

    def scores_of(examples, gradients):
        leaves = {
            name: torch.tensor([getattr(one, name) for one in examples], dtype=dtype, requires_grad=gradients)
            for name in LEAVES
        }
        scores = Scores(
            logits=leaves["logits"],
            targets=targets,
            prefixes=trie.walk(targets),
            statistics=catalogue_of(codes, trained, embeddings),
            eos_logits=leaves["eos_logits"] if eos else None,
            negative_logp=leaves["negative_logp"],
            negative_prefixes=trie.walk(others),
        )
        return scores, leaves

    scores, leaves = scores_of(policy, True)
    if reference:
        scores = replace(scores, reference=scores_of(frozen, False)[0])
    examples = [
        Referred(**vars(one), reference=other if reference else None) for one, other in zip(policy, frozen, strict=True)
    ]
    items = [tuple(row) for row in codes.tokens.tolist()]
    return Batch(items, trained.tolist(), embeddings.tolist(), examples, scores, leaves)


def objective_of(kind, **options):
    return OBJECTIVES[kind](type=kind, **options)


def evaluate(objective, scores):
    return objective(scores, objective.initial_state(scores.targets.shape[1], torch.device("cpu")))


def gradients(loss, leaves):
    """All gradients in one vector; 0 where the loss does not depend on a leaf."""
    found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, retain_graph=True)
    return torch.cat(
        [
            (torch.zeros_like(leaf) if one is None else one).reshape(-1)
            for one, leaf in zip(found, leaves.values(), strict=True)
        ]
    )


def assert_same(one, other, leaves, factor=1.0):
    """Assert that ``one`` is ``factor`` times ``other``, and likewise their gradients."""
    torch.testing.assert_close(one, factor * other, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(gradients(one, leaves), factor * gradients(other, leaves), atol=1e-12, rtol=1e-10)


def gradcheck(objective, batch, state=None):
    """Autograd's own gradient check, for all scores of a backbone."""

    def loss(*values):
        scores = replace(batch.scores, **dict(zip(LEAVES, values, strict=True)))
        return objective(scores, state or {}).loss

    return torch.autograd.gradcheck(loss, tuple(batch.leaves[name] for name in LEAVES))


def codes_of(rows):
    return ItemCodes(np.array(rows))
