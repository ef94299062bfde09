"""Exact ranking: the score of every code of the catalogue, nothing pruned.

Shapes: B users, U distinct codes, T levels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from apao.backbones.base import Backbone, Context
from apao.backbones.scoring import candidate_logp
from apao.codes.itemcodes import EOS


@torch.no_grad()
def full_sort_scores(
    backbone: Backbone, context: Context, codes: Tensor, eos: bool, codes_at_once: int = 1024
) -> Tensor:
    """Mean token log-probability (B, U) of the codes (U, T); comparable with beam search's scores."""
    batch = len(context.start)
    scores = []
    for block in codes.split(codes_at_once):
        logp = candidate_logp(backbone, context, block.expand(batch, -1, -1), EOS if eos else None)
        scores.append(logp.mean(dim=-1))
    return torch.cat(scores, dim=1)
