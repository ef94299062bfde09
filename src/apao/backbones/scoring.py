"""Scores of whole codes under a backbone: what training and exact ranking both need.

Shapes: B batch, C candidates a history, S tokens fed a candidate, T levels, V vocabulary, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from apao.backbones.base import Backbone, Context
from apao.probabilities import token_logp


def candidate_logp(backbone: Backbone, context: Context, start: Tensor, tokens: Tensor) -> Tensor:
    """Token log-probabilities (B, C, T) of the codes ``tokens`` (B, C, T).

    ``start`` (B, V) are the logits of ``context.start``.
    """
    fed = tokens[..., :-1]
    after = backbone.extend(context, fed)[0] if fed.shape[-1] else None
    return join_logp(backbone, start, tokens[..., 0], after, tokens[..., 1:])


def join_logp(backbone: Backbone, start: Tensor, first: Tensor, after: Tensor | None, predicted: Tensor) -> Tensor:
    """Log-probabilities (B, C, 1 + S) of codes scored in two parts.

    The first token (B, C) comes from one distribution a history, ``start`` (B, V), computed once for
    all candidates; the tokens ``predicted`` (B, C, S) from the states ``after`` (B, C, S, D).
    """
    head = start.float().log_softmax(dim=-1).gather(1, first)[..., None]
    if after is None:
        return head
    return torch.cat([head, token_logp(backbone.logits(after), predicted)], dim=-1)
