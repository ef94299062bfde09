"""SASRec: causal self-attention over the items of a history (Kang and McAuley 2018, arXiv 1808.09781).

Shapes as in ``base``. A block is the paper's: x + Dropout(g(LayerNorm(x))), where g is attention or a point-wise
feed-forward net of two ``hidden`` x ``hidden`` layers. Item embeddings are tied and multiplied by sqrt(D), as in
the authors' code. Different from it:

- The loss is the objective's, such as cross-entropy over all items, instead of one sampled negative per position.
- Positions count from the first item that is read, because histories are padded on the right. The authors pad on
  the left, where the newest item has the same position in every history.
- Attention ends with an output projection, and keys and values are normalised like the queries.
- Dropout is also applied to the attention weights, as in their code but not in their paper.
"""

from __future__ import annotations

from typing import Any, Literal, cast

import torch
from pydantic import PositiveInt, model_validator
from torch import Tensor, nn
from typing_extensions import override

from apao.backbones.base import BACKBONES, CausalParams, Context, Past
from apao.backbones.causal import CausalBackbone, glorot_normal
from apao.backbones.dropout import Dropout
from apao.backbones.exchange import config_size, probability
from apao.backbones.layers import KeyValues, additive_mask, candidate_attention, causal_mask, merge_heads
from apao.errors import UserError

NORM_EPS = 1e-8


@BACKBONES.register
class SasRecParams(CausalParams):
    """Sizes of SASRec, the self-attentive baseline for codes of one token (``item-id``)."""

    type: Literal["sasrec"]
    hidden: PositiveInt = 64
    heads: PositiveInt = 2
    layers: PositiveInt = 2
    dropout: probability = 0.2
    positions: PositiveInt = 256
    """Learned positions, in tokens. ``max_history`` + 2 codes always suffice; longer sequences are refused."""

    @model_validator(mode="after")
    def _whole_heads(self) -> SasRecParams:
        if self.hidden % self.heads:
            raise ValueError(f"hidden {self.hidden} must be a multiple of heads ({self.heads})")
        return self

    @override
    def build(self, vocabulary: int) -> SasRec:
        return SasRec(self, vocabulary)

    @override
    def transformers_config(self, vocabulary: int) -> dict[str, Any]:
        return {
            "model_type": "sasrec",
            "vocab_size": vocabulary,
            "hidden_size": self.hidden,
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "max_position_embeddings": self.positions,
            "dropout_rate": self.dropout,
        }

    @classmethod
    @override
    def from_transformers_config(cls, config: dict[str, Any]) -> SasRecParams:
        return cls(
            type="sasrec",
            hidden=config_size(config, "hidden_size"),
            heads=config_size(config, "num_attention_heads"),
            layers=config_size(config, "num_hidden_layers"),
            positions=config_size(config, "max_position_embeddings"),
            dropout=config.get("dropout_rate", 0.2),
        )


class Layer(nn.Module):
    """Self-attention and feed-forward net, each behind a norm and a residual.

    Equal to ``torch.nn.TransformerEncoderLayer`` with ``norm_first`` and a feed-forward net of width D.
    """

    def __init__(self, params: SasRecParams) -> None:
        super().__init__()
        width = params.hidden
        self.heads = params.heads
        self.attention_norm = nn.LayerNorm(width, NORM_EPS)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.feed_norm = nn.LayerNorm(width, NORM_EPS)
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, width)
        self.dropout = Dropout(params.dropout)

    def project(self, x: Tensor) -> tuple[Tensor, KeyValues]:
        """Queries, keys and values (..., H, S, d) of (..., S, D)."""
        parts = self.qkv(self.attention_norm(x)).unflatten(-1, (3, self.heads, -1))
        queries, keys, values = parts.movedim(-3, 0).transpose(-2, -3)
        return queries, KeyValues(keys, values)

    def attend(self, queries: Tensor, memory: KeyValues) -> Tensor:
        """Causal attention (B, H, L, d) of whole sequences."""
        length, scale = queries.shape[-2], queries.shape[-1] ** -0.5
        scores = (queries @ memory.keys.transpose(-1, -2)).float() * scale
        weights: Tensor = self.dropout((scores + causal_mask(length, length, queries.device)).softmax(dim=-1))
        return weights.to(queries.dtype) @ memory.values

    def finish(self, x: Tensor, mixed: Tensor) -> Tensor:
        """Residual and feed-forward net after attention; ``mixed`` is (..., H, S, d)."""
        x = x + self.dropout(self.out(merge_heads(mixed)))
        inner = self.dropout(self.first(self.feed_norm(x)).relu())
        return x + self.dropout(self.second(inner))


class SasRec(CausalBackbone):
    """SASRec (``SasRecParams``) as a backbone: the state after an item predicts the next one."""

    params: SasRecParams

    def __init__(self, params: SasRecParams, vocabulary: int) -> None:
        super().__init__()
        self.params, self.vocabulary = params, vocabulary
        self.embedding = nn.Embedding(vocabulary, params.hidden)
        self.positions = nn.Embedding(params.positions, params.hidden)
        self.dropout = Dropout(params.dropout)
        self.layers = nn.ModuleList(Layer(params) for _ in range(params.layers))
        self.norm = nn.LayerNorm(params.hidden, NORM_EPS)
        glorot_normal(self)

    def _embed(self, tokens: Tensor, positions: Tensor, longest: int) -> Tensor:
        """(..., S, D) input of the first layer; no position exceeds ``longest`` - 1, which is known on the host."""
        if longest > self.params.positions:
            raise UserError(
                f"sasrec has {self.params.positions} positions, too few for {longest} tokens of history and code; "
                f"in its recipe, set positions to {longest} or more, or a smaller max_history"
            )
        items = self.embedding(tokens) * self.params.hidden**0.5
        return cast(Tensor, self.dropout(items + self.positions(positions)))

    @override
    def read(self, tokens: Tensor, starts: Tensor, candidates: int) -> tuple[Tensor, Context]:
        length = tokens.shape[1]
        position = torch.arange(length, device=tokens.device)
        x, memories = self._embed(tokens, position, length), []
        for layer in cast(list[Layer], self.layers):
            # Padding is on the right, so the causal mask alone hides it from all other tokens.
            queries, memory = layer.project(x)
            x = layer.finish(x, layer.attend(queries, memory))
            memories.append(memory)
        place = starts.repeat_interleave(candidates, dim=1)
        mask = additive_mask(position <= place[..., None])[:, None, :, None]
        return self.norm(x), Context(along=x[:, :0], layers=memories, mask=mask, lengths=place + 1)

    @override
    def extend(self, context: Context, tokens: Tensor, past: Past | None = None) -> tuple[Tensor, Past]:
        new = tokens.shape[-1]
        total = new + (past[0].keys.shape[-2] if past else 0)
        positions = context.lengths[..., None] + torch.arange(total - new, total, device=tokens.device)
        own_bias = causal_mask(new, total, tokens.device)
        x = self._embed(tokens, positions, context.mask.shape[-1] + total)
        cache = []
        for i, layer in enumerate(cast(list[Layer], self.layers)):
            queries, own = layer.project(x)
            if past:
                own = past[i].append(own)
            mixed = candidate_attention(queries, context.layers[i], context.mask, own, own_bias, layer.dropout)
            x = layer.finish(x, mixed)
            cache.append(own)
        return self.norm(x), tuple(cache)

    @override
    def logits(self, hidden: Tensor) -> Tensor:
        return nn.functional.linear(hidden, self.embedding.weight)
