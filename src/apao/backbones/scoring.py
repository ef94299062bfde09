"""Scores of whole codes under a backbone: what training and exact ranking both need.

Shapes: B batch, C candidates a history, T levels, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from apao.backbones.base import Backbone, Context
from apao.objectives.base import token_logp


def target_logits(backbone: Backbone, context: Context, targets: Tensor, eos: bool) -> Tensor:
    """Logits at the steps that predict ``targets`` (B, T), and with ``eos`` the step after: (B, T (+ 1), V)."""
    fed = targets if eos else targets[:, :-1]
    hidden = context.start[:, None]
    if fed.shape[1]:
        after, _ = backbone.extend(context, fed[:, None])
        hidden = torch.cat([hidden, after[:, 0]], dim=1)
    return backbone.logits(hidden)


def candidate_logp(backbone: Backbone, context: Context, tokens: Tensor, eos: int | None = None) -> Tensor:
    """Token log-probabilities (B, C, T) of the codes ``tokens`` (B, C, T); with ``eos`` (B, C, T + 1).

    The first level is one distribution a history, scored once for all candidates.
    """
    first = backbone.logits(context.start).float().log_softmax(dim=-1)
    parts = [first.gather(1, tokens[..., 0])[..., None]]
    predicted = tokens[..., 1:]
    if eos is not None:
        predicted = torch.nn.functional.pad(predicted, (0, 1), value=eos)
    fed = tokens[..., : predicted.shape[-1]]
    if fed.shape[-1]:
        hidden, _ = backbone.extend(context, fed)
        parts.append(token_logp(backbone.logits(hidden), predicted))
    return torch.cat(parts, dim=-1)
