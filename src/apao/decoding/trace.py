"""Beam search of one history with everything it looked at, to see what it drops and where.

Slow and plain: every step reads its prefixes anew. ``decoding.beam`` finds the same beams, up to the
order of equal scores.

Shapes: T levels, n candidates of a step, m length of their prefixes, V vocabulary.
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
