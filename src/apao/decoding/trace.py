"""Beam search of one history with everything it looked at, to see what it drops and where.

Slow and plain: every step reads its prefixes anew. ``decoding.beam`` finds the same beams, up to the
order of equal scores.

Shapes: B users, C codes a user, T levels, n candidates of a step, m length of their prefixes, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from apao.backbones.base import Backbone, Context
from apao.backbones.softmax import PLAIN, Softmax
from apao.codes.trie import Trie


@dataclass(frozen=True, eq=False)
class Step:
    """What one step chose from: every legal continuation of the prefixes kept before, best first.

    Attributes:
        prefixes: (n, m) tokens.
        logp: (n,) their log-probabilities.
        kept: the first so many are the beam.
    """

    prefixes: Tensor
    logp: Tensor
    kept: int


@torch.no_grad()
def trace(backbone: Backbone, context: Context, trie: Trie, beam: int, softmax: Softmax = PLAIN) -> list[Step]:
    """The T steps of a beam search of that width, for a context of one history."""
    device = context.start.device
    prefixes = torch.empty(1, 0, dtype=torch.long, device=device)
    states, logp = torch.zeros(1, dtype=torch.long, device=device), torch.zeros(1, device=device)
    steps = []
    for width in trie.widths:
        hidden = context.start
        if prefixes.shape[1]:
            hidden = backbone.extend(context, prefixes[None])[0][0, :, -1]
        tokens, after, exist = trie.children(states, width)
        parent = torch.arange(len(states), device=device)[:, None].expand_as(tokens)[exist]
        total = (logp[:, None] + softmax.logp_of(backbone.logits(hidden), tokens, exist))[exist]
        total, order = total.sort(descending=True, stable=True)
        candidates = torch.cat([prefixes[parent], tokens[exist][:, None]], dim=1)[order]
        steps.append(Step(candidates, total, min(beam, len(total))))
        kept = slice(steps[-1].kept)
        prefixes, states, logp = candidates[kept], after[exist][order][kept], total[kept]
    return steps


@torch.no_grad()
def token_logp(
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
