"""The contract every backbone keeps, and the pieces they share.

Shapes: B batch, L history tokens, C candidates a history, S tokens fed a candidate, P tokens fed
before (cached), D width, H heads, d head width, V vocabulary.

A backbone reads a batch of histories once (``encode``) and scores any number of candidate codes against
that one reading: in training target and candidates in the same pass, in decoding later (``extend``).
Nothing of the history is computed or copied per candidate.
Padding side, start tokens and position offsets are its private business.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from apao.parameters import Model, Registry


class BackboneParams(Model, ABC):
    """Sizes of a backbone, as in params.yaml; builds the model."""

    type: str
    max_history: PositiveInt = 20
    """Items a history is cut to, the latest kept."""

    decodes_eos: ClassVar[bool]
    """Whether the authors' release decodes a closing eos and divides scores by T + 1."""

    @property
    def packs(self) -> bool:
        """Whether training reads all examples of a user in one sequence (see ``training.packing``)."""
        return False

    @abstractmethod
    def build(self, vocabulary: int) -> Backbone:
        """A freshly initialised model (from torch's global generator) for V tokens."""

    @abstractmethod
    def transformers_config(self, vocabulary: int) -> dict[str, Any]:
        """The ``config.json`` with which the ``transformers`` class loads the saved weights."""

    @classmethod
    @abstractmethod
    def from_transformers_config(cls, config: dict[str, Any]) -> BackboneParams:
        """Inverse of ``transformers_config``: sizes of a model saved by ``transformers``.

        Raises:
            UserError: when a size is missing, or that model computes something else than this backbone.
        """


BACKBONES: Registry[BackboneParams] = Registry("backbone", "apao.backbones")


@dataclass(frozen=True)
class KeyValues:
    """Keys and values of one attention layer: (B, H, L, d), or (B, C, H, P, d) for candidates."""

    keys: Tensor
    values: Tensor

    def append(self, other: KeyValues) -> KeyValues:
        """Both, one after the other along the token axis."""
        return KeyValues(torch.cat([self.keys, other.keys], dim=-2), torch.cat([self.values, other.values], dim=-2))

    def repeated(self, candidates: int, dim: int = 1) -> KeyValues:
        """The same for each of C candidates: (B, H, P, d) seen with a new axis of that size at ``dim``."""
        return KeyValues(*(x[None].expand(candidates, *x.shape).movedim(0, dim) for x in (self.keys, self.values)))


@dataclass(frozen=True)
class Context:
    """What ``encode`` keeps of a batch of histories.

    Attributes:
        along: (B, 1 + S, D) final hidden states after the history and after each token of the target.
        after: (B, C, S, D) final hidden states after each token of the candidates that were read with it, or None.
        layers: one entry per layer, of the backbone's own kind.
        mask: additive attention mask of the history's tokens, in the backbone's own shape.
        lengths: (B, 1) or (B, C) tokens before the first candidate token.
    """

    along: Tensor
    layers: Sequence[Any]
    mask: Tensor
    lengths: Tensor
    after: Tensor | None = None

    @property
    def start(self) -> Tensor:
        """(B, D) final hidden state that predicts the first code."""
        return self.along[:, 0]


Past = tuple[KeyValues, ...]
"""Cached keys and values of the tokens that candidates do not share, one entry per layer."""


def reorder(past: Past, parents: Tensor) -> Past:
    """The cache of the candidates ``parents`` (B, C') out of (B, C): each beam takes its parent's."""
    rows = torch.arange(len(parents), device=parents.device)[:, None]
    return tuple(KeyValues(layer.keys[rows, parents], layer.values[rows, parents]) for layer in past)


class Backbone(nn.Module, ABC):
    """A model p(code | history). See the module's head for the shapes."""

    params: BackboneParams
    vocabulary: int

    @abstractmethod
    def encode(self, history: Tensor, target: Tensor | None = None, candidates: Tensor | None = None) -> Context:
        """Read histories (B, L): token ids, oldest first, padded with 0 on the right, none empty.

        With ``target`` (B, S) that code, or the beginning of it, is read after each, with ``candidates``
        (B, C, S) those too, none seeing another: ``along`` and ``after`` of the context.
        """

    @abstractmethod
    def extend(self, context: Context, tokens: Tensor, past: Past | None = None) -> tuple[Tensor, Past]:
        """Feed ``tokens`` (B, C, S) after the history and, if given, after the cached tokens.

        Returns the final hidden states (B, C, S, D), each of which predicts the token after it, and
        the cache that now holds S tokens more. A candidate sees the history and itself, no other.
        """

    def read(self, tokens: Tensor, starts: Tensor, candidates: int) -> tuple[Tensor, Context]:
        """Causal states of whole sequences, and a context for candidates in the middle of them.

        ``tokens`` (R, L) are padded on the right; ``starts`` (R, E) are places in them. Returns the
        states (R, L, D) and a context in which ``candidates`` codes continue each place: candidate
        e * ``candidates`` + c of row r sees the tokens up to ``starts[r, e]``. Its ``start`` is empty.
        Only for backbones whose parameters may say ``packs``.
        """
        raise NotImplementedError

    @abstractmethod
    def logits(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., V)."""

    def decayed(self) -> list[nn.Parameter]:
        """Parameters with weight decay: matrices and embeddings, not the scales of norms."""
        return [parameter for parameter in self.parameters() if parameter.dim() > 1]

    @abstractmethod
    def to_transformers(self) -> dict[str, Tensor]:
        """The weights under the key names of the ``transformers`` class."""

    @abstractmethod
    def load_transformers(self, weights: dict[str, Tensor]) -> None:
        """Inverse of ``to_transformers``; raises UserError when a name or shape does not fit."""


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
    """(..., S, D) through n projections to H * d without bias, in one matrix product: (n, ..., H, S, d)."""
    weight = torch.cat([projection.weight for projection in projections])
    parts = nn.functional.linear(x, weight).unflatten(-1, (len(projections), heads, -1))
    # One copy for all of them; the products of attention would make one of each.
    return parts.movedim(-3, 0).transpose(-2, -3).contiguous()


def split_candidates(
    queries: Tensor, memory: KeyValues, line: int, candidates: int
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Queries, keys and values of (B, H, line + C * S, d), apart.

    First those of the ``line`` tokens (B, H, line, d), then those of the candidates (B, H, C, S, d).
    """
    # A split: the gradient of two slices would be two whole tensors of mostly zeros.
    parts = (t.split([line, t.shape[2] - line], dim=2) for t in (queries, memory.keys, memory.values))
    first, rest = zip(*parts, strict=True)
    return first, tuple(t.unflatten(2, (candidates, -1)) for t in rest)


def merge_heads(x: Tensor) -> Tensor:
    """(..., H, S, d) -> (..., S, H * d)."""
    return x.transpose(-2, -3).flatten(-2)


def additive_mask(visible: Tensor) -> Tensor:
    """0 where ``visible``, a very negative number elsewhere."""
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
    # On a CPU in bf16 the backward pass of the fused kernel takes half of a training; plain products do not.
    bias = causal_mask(queries.shape[-2], keys.shape[-2], queries.device) if visible is None else additive_mask(visible)
    scores = torch.add(bias, (queries @ keys.transpose(-1, -2)).float(), alpha=queries.shape[-1] ** -0.5)
    return scores.softmax(dim=-1).to(queries.dtype) @ values


def candidate_attention(
    queries: Tensor,
    shared: KeyValues,
    shared_bias: Tensor | None,
    own: KeyValues,
    own_bias: Tensor,
    scale: float,
    dropout: nn.Module,
) -> Tensor:
    """Attention of every candidate's tokens over the shared history and over the candidate itself.

    Args:
        queries: (B, C, H, S, d).
        shared: history keys and values (B, H, L, d), read once for all candidates.
        shared_bias: added to the scores over the history, broadcastable to (B, H, C, S, L).
        own: the candidate's own keys and values (B, C, H, P + S, d).
        own_bias: bias and causal mask over them, broadcastable to (B, C, H, S, P + S).
        scale: factor on the scores.
        dropout: applied to the attention weights.

    Returns:
        (B, C, H, S, d)
    """
    candidates, length = queries.shape[1], queries.shape[3]
    # One matrix product a head for the candidates of a history together: (B, H, C * S, L).
    block = queries.transpose(1, 2).flatten(2, 3)
    over_history = (block @ shared.keys.transpose(-1, -2)).unflatten(2, (candidates, length)).float() * scale
    if shared_bias is not None:
        over_history = over_history + shared_bias
    over_own = (queries @ own.keys.transpose(-1, -2)).float() * scale + own_bias
    # (B, H, C, S, L + P + S)
    scores = torch.cat([over_history, over_own.transpose(1, 2)], dim=-1)
    weights = dropout(scores.softmax(dim=-1)).to(queries.dtype)
    history_weights, own_weights = weights.split([shared.keys.shape[-2], own.keys.shape[-2]], dim=-1)
    from_history = (history_weights.flatten(2, 3) @ shared.values).unflatten(2, (candidates, length))
    return from_history.transpose(1, 2) + own_weights.transpose(1, 2) @ own.values


def causal_mask(new: int, total: int, device: torch.device) -> Tensor:
    """Additive (new, total): the last ``new`` of ``total`` tokens see themselves and what is before."""
    return additive_mask(torch.ones(new, total, dtype=torch.bool, device=device).tril(total - new))
