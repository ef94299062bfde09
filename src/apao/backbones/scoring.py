"""Scores of whole codes under a backbone: what training and exact ranking both need.

Shapes: B batch, C candidates a history, S tokens fed a candidate, T levels, V vocabulary, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from apao.backbones.base import Backbone, Context
from apao.probabilities import token_logp


def target_logits(backbone: Backbone, context: Context, targets: Tensor, eos: bool) -> Tensor:
    """Logits at the steps that predict ``targets`` (B, T), and with ``eos`` the step after: (B, T (+ 1), V)."""
    fed = targets if eos else targets[:, :-1]
    hidden = context.start[:, None]
    if fed.shape[1]:
        after, _ = backbone.extend(context, fed[:, None])
        hidden = torch.cat([hidden, after[:, 0]], dim=1)
    return backbone.logits(hidden)


def candidate_logp(backbone: Backbone, context: Context, tokens: Tensor) -> Tensor:
    """Token log-probabilities (B, C, T) of the codes ``tokens`` (B, C, T)."""
    fed = tokens[..., :-1]
    after = backbone.extend(context, fed)[0] if fed.shape[-1] else None
    return join_logp(backbone, backbone.logits(context.start), tokens[..., 0], after, tokens[..., 1:])


def join_logp(backbone: Backbone, start: Tensor, first: Tensor, after: Tensor | None, predicted: Tensor) -> Tensor:
    """Log-probabilities (B, C, 1 + S) of codes scored in two parts.

    The first token (B, C) comes from one distribution a history, ``start`` (B, V), computed once for
    all candidates; the tokens ``predicted`` (B, C, S) from the states ``after`` (B, C, S, D).
    """
    head = start.float().log_softmax(dim=-1).gather(1, first)[..., None]
    if after is None:
        return head
    return torch.cat([head, token_logp(backbone.logits(after), predicted)], dim=-1)
