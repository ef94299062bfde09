"""Scores of whole codes under a backbone: what training and exact ranking both need.

Shapes: B batch, C candidates a history, S tokens fed a candidate, T levels, V vocabulary, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from apao.backbones.base import Backbone
from apao.probabilities import token_logp


def join_logp(backbone: Backbone, start: Tensor, first: Tensor, after: Tensor | None, predicted: Tensor) -> Tensor:
    """Log-probabilities (B, C, 1 + S) of codes scored in two parts.

    The first token (B, C) comes from one distribution a history, ``start`` (B, V), computed once for
    all candidates; the tokens ``predicted`` (B, C, S) from the states ``after`` (B, C, S, D).
    """
    head = start.float().log_softmax(dim=-1).gather(1, first)[..., None]
    if after is None:
        return head
    return torch.cat([head, token_logp(backbone.logits(after), predicted)], dim=-1)
