"""Exact scoring: the scores of all codes of the catalogue, without pruning (the paper: full sorting).

Shapes: B users, U distinct codes, C codes of each user, T levels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from apao.backbones.base import Backbone, Context
from apao.backbones.softmax import PLAIN, Softmax
from apao.codes.trie import Trie

CPU_CANDIDATES, GPU_CANDIDATES = 8192, 2**16
"""Users times codes that are scored at once; bounds memory and fits a processor's caches."""


@torch.no_grad()
def exact_scores(
    backbone: Backbone, context: Context, trie: Trie, codes: Tensor, eos: bool, softmax: Softmax = PLAIN
) -> Tensor:
    """Mean token log-probability (B, U) of the codes (U, T), comparable with the scores of beam search.

    ``codes`` are distinct, and those with a common prefix are neighbours, as in ``ItemCodes.distinct_tokens``, so every
    prefix of a piece is computed once. With ``eos`` the mean is over T + 1 tokens.
    """
    states = trie.walk(codes)
    at_once = CPU_CANDIDATES if codes.device.type == "cpu" else GPU_CANDIDATES
    size = max(1, at_once // len(context.start))
    pieces = zip(codes.split(size), states.split(size), strict=True)
    return torch.cat([_score_piece(backbone, context, trie, *piece, eos, softmax) for piece in pieces], dim=1)


def _score_piece(
    backbone: Backbone, context: Context, trie: Trie, codes: Tensor, states: Tensor, eos: bool, softmax: Softmax
) -> Tensor:
    """Scores of neighbouring codes, computed level by level over the tree of their prefixes."""
    batch, levels = len(context.start), codes.shape[1]
    scores_eos = eos and softmax.scores_eos
    total = torch.zeros(batch, 1, device=codes.device)
    hidden, past = context.start[:, None], None
    above = torch.zeros_like(codes[:, 0])
    before = above[:1]
    for level in range(levels):
        reached, prefix, counts = states[:, level].unique_consecutive(return_inverse=True, return_counts=True)
        first = counts.cumsum(0) - counts
        parent, token = above[first], codes[first, level]
        legal = trie.legal(before) if softmax.legal_only else None
        logp = softmax.logp(backbone.logits(hidden), legal)
        total = total[:, parent] + logp[:, parent, token]
        if level + 1 < levels or scores_eos:
            past = backbone.reorder(past, parent.expand(batch, -1)) if past else None
            hidden, past = backbone.extend(context, token.expand(batch, -1)[..., None], past)
            hidden = hidden[:, :, 0]
        above, before = prefix, reached
    if scores_eos:
        total = total + softmax.closing(backbone.logits(hidden))
    return total / (levels + eos)


@torch.no_grad()
def code_logp(
    backbone: Backbone, context: Context, trie: Trie, codes: Tensor, eos: bool, softmax: Softmax = PLAIN
) -> Tensor:
    """Log-probability of each token of the codes (B, C, T), given those before it: (B, C, T), or T + 1 with ``eos``."""
    after = backbone.extend(context, codes)[0]
    start = context.start[:, None, None].expand(-1, codes.shape[1], 1, -1)
    logits = backbone.logits(torch.cat([start, after], dim=2))
    legal = None
    if softmax.legal_only:
        root = torch.zeros_like(codes[..., :1])
        legal = trie.legal(torch.cat([root, trie.walk(codes)[..., :-1]], dim=-1))
    found = softmax.logp(logits[:, :, :-1], legal).gather(-1, codes[..., None])[..., 0]
    if not eos:
        return found
    closing = softmax.closing(logits[:, :, -1:]) if softmax.scores_eos else torch.zeros_like(found[..., :1])
    return torch.cat([found, closing], dim=-1)
