"""The layers that backbones share: norm, projections, attention over a history and within candidates, masks.

Shapes as in ``base``.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class KeyValues(NamedTuple):
    """Keys and values of one attention layer: (B, H, L, d), or (B, C, H, P, d) for candidates."""

    keys: Tensor
    values: Tensor

    def append(self, other: KeyValues) -> KeyValues:
        """Concatenation of both along the token axis."""
        return KeyValues(torch.cat([self.keys, other.keys], dim=-2), torch.cat([self.values, other.values], dim=-2))

    def repeated(self, candidates: int, dim: int = 1) -> KeyValues:
        """A view for C candidates: (B, H, P, d) with a new axis of size ``candidates`` at ``dim``."""
        return KeyValues(*(x[None].expand(candidates, *x.shape).movedim(0, dim) for x in (self.keys, self.values)))


class RMSNorm(nn.Module):
    """Root-mean-square norm with a scale and no bias, computed in fp32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        return nn.functional.rms_norm(x.float(), x.shape[-1:], self.weight, self.eps).to(x.dtype)


def project(x: Tensor, heads: int, *projections: nn.Linear) -> Tensor:
    """Apply n bias-free projections to H * d in one matrix product: (..., S, D) -> (n, ..., H, S, d)."""
    weight = torch.cat([projection.weight for projection in projections])
    parts = nn.functional.linear(x, weight).unflatten(-1, (len(projections), heads, -1))
    # One contiguous copy of all; otherwise each matrix product of attention would copy its operands.
    return parts.movedim(-3, 0).transpose(-2, -3).contiguous()


def split_candidates(
    queries: Tensor, memory: KeyValues, leading: int, candidates: int
) -> tuple[tuple[Tensor, KeyValues], tuple[Tensor, KeyValues]]:
    """Split queries, keys and values (B, H, leading + C * S, d) where the C candidates begin.

    Returns those of the ``leading`` tokens (B, H, leading, d) and those of the candidates (B, H, C, S, d).
    """
    # torch.split and not two slices, whose gradients would be two whole tensors of mostly zeros.
    parts = (t.split([leading, t.shape[2] - leading], dim=2) for t in (queries, memory.keys, memory.values))
    (first, *first_memory), rest = zip(*parts, strict=True)
    of_candidates, *candidate_memory = (t.unflatten(2, (candidates, -1)) for t in rest)
    return (first, KeyValues(*first_memory)), (of_candidates, KeyValues(*candidate_memory))


def merge_heads(x: Tensor) -> Tensor:
    """(..., H, S, d) -> (..., S, H * d)."""
    return x.transpose(-2, -3).flatten(-2)


def additive_mask(visible: Tensor) -> Tensor:
    """Attention bias of the shape of ``visible`` (bool): 0 where true, the lowest fp32 number elsewhere."""
    return torch.zeros(visible.shape, device=visible.device).masked_fill(~visible, torch.finfo(torch.float32).min)


def padding_mask(present: Tensor) -> Tensor:
    """Additive mask (B, 1, 1, L) from bool (B, L)."""
    return additive_mask(present)[:, None, None, :]


def causal_attention(queries: Tensor, keys: Tensor, values: Tensor, visible: Tensor | None = None) -> Tensor:
    """Scaled attention over one sequence per example, without dropout.

    Args:
        queries: (B, H, S, d).
        keys: (B, H, L, d).
        values: (B, H, L, d).
        visible: bool, broadcastable to (B, H, S, L); None for L = S and causal visibility.

    Returns:
        (B, H, S, d)
    """
    if queries.device.type != "cpu" or queries.dtype != torch.bfloat16:
        causal = visible is None
        return nn.functional.scaled_dot_product_attention(queries, keys, values, visible, is_causal=causal)
    # On a CPU in bf16 the backward pass of the fused kernel takes half of the training time; this is faster.
    bias = causal_mask(queries.shape[-2], keys.shape[-2], queries.device) if visible is None else additive_mask(visible)
    scores = torch.add(bias, (queries @ keys.transpose(-1, -2)).float(), alpha=queries.shape[-1] ** -0.5)
    return scores.softmax(dim=-1).to(queries.dtype) @ values


def candidate_attention(
    queries: Tensor,
    shared: KeyValues,
    shared_bias: Tensor,
    own: KeyValues,
    own_bias: Tensor,
    dropout: nn.Module | None = None,
) -> Tensor:
    """Attention of every candidate's tokens over the shared history and over the candidate itself.

    Args:
        queries: (B, C, H, S, d).
        shared: history keys and values (B, H, L, d), read once for all candidates.
        shared_bias: added to the scores over the history, broadcastable to (B, H, C, S, L).
        own: the candidate's own keys and values (B, C, H, P + S, d).
        own_bias: bias and causal mask over them, broadcastable to (B, C, H, S, P + S).
        dropout: applied to the attention weights.

    Returns:
        (B, C, H, S, d)
    """
    candidates, length, scale = queries.shape[1], queries.shape[3], queries.shape[-1] ** -0.5
    # One matrix product per head for all candidates of a history: (B, H, C * S, L).
    block = queries.transpose(1, 2).flatten(2, 3)
    over_history = (block @ shared.keys.transpose(-1, -2)).unflatten(2, (candidates, length)).float()
    over_history = over_history * scale + shared_bias
    over_own = (queries @ own.keys.transpose(-1, -2)).float() * scale + own_bias
    # (B, H, C, S, L + P + S)
    scores = torch.cat([over_history, over_own.transpose(1, 2)], dim=-1)
    weights = scores.softmax(dim=-1)
    weights = (weights if dropout is None else dropout(weights)).to(queries.dtype)
    history_weights, own_weights = weights.split([shared.keys.shape[-2], own.keys.shape[-2]], dim=-1)
    from_history = (history_weights.flatten(2, 3) @ shared.values).unflatten(2, (candidates, length))
    return from_history.transpose(1, 2) + own_weights.transpose(1, 2) @ own.values


def causal_mask(new: int, total: int, device: torch.device) -> Tensor:
    """Additive mask (new, total): the last ``new`` of ``total`` tokens attend to themselves and earlier ones."""
    return additive_mask(torch.ones(new, total, dtype=torch.bool, device=device).tril(total - new))
