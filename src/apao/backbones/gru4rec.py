"""GRU4Rec: a recurrent net over the items of a history (Hidasi et al. 2016, arXiv 1511.06939).

Shapes as in ``base``; E embedding width. It is the form in common use: an embedding, GRU layers, a projection back to
the embedding's width, and the embedding again as output. Different from the authors' code:

- The loss is the objective's, such as cross-entropy over all items, instead of a ranking loss (BPR, TOP1) over the
  other items of a mini-batch.
- Examples are users' histories of at most ``max_history`` items instead of sessions read in parallel.
- Input and output share their embeddings, which is an option there; dropout is on the input.

On a GPU, cuDNN computes the layers in TF32 where the rest is fp32, unless ``torch.backends.cudnn.allow_tf32`` is off.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, cast

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from typing_extensions import override

from apao.backbones.base import BACKBONES, CausalParams, Context, Past
from apao.backbones.causal import CausalBackbone, glorot_normal
from apao.backbones.dropout import Dropout
from apao.backbones.exchange import config_size, probability
from apao.codes.vocabulary import PAD


@BACKBONES.register
class Gru4RecParams(CausalParams):
    """Sizes of GRU4Rec, the recurrent baseline for codes of one token (``item-id``)."""

    type: Literal["gru4rec"]
    embedding: PositiveInt = 64
    hidden: PositiveInt = 128
    layers: PositiveInt = 1
    dropout: probability = 0.2

    @override
    def build(self, vocabulary: int) -> Gru4Rec:
        return Gru4Rec(self, vocabulary)

    @override
    def transformers_config(self, vocabulary: int) -> dict[str, Any]:
        return {
            "model_type": "gru4rec",
            "vocab_size": vocabulary,
            "embedding_size": self.embedding,
            "hidden_size": self.hidden,
            "num_hidden_layers": self.layers,
            "dropout_rate": self.dropout,
        }

    @classmethod
    @override
    def from_transformers_config(cls, config: dict[str, Any]) -> Gru4RecParams:
        return cls(
            type="gru4rec",
            embedding=config_size(config, "embedding_size"),
            hidden=config_size(config, "hidden_size"),
            layers=config_size(config, "num_hidden_layers"),
            dropout=config.get("dropout_rate", 0.2),
        )


class LayerState(NamedTuple):
    """The state (B, C, D) of one layer after the last token of each candidate."""

    last: Tensor


class Gru4Rec(CausalBackbone):
    """GRU4Rec (``Gru4RecParams``) as a backbone: the state after an item predicts the next one."""

    params: Gru4RecParams

    def __init__(self, params: Gru4RecParams, vocabulary: int) -> None:
        super().__init__()
        self.params, self.vocabulary = params, vocabulary
        self.embedding = nn.Embedding(vocabulary, params.embedding)
        self.dropout = Dropout(params.dropout)
        # One module per layer: torch returns the states of a stack's last layer only, and ``read`` needs all.
        widths = [params.embedding, *[params.hidden] * (params.layers - 1)]
        self.layers = nn.ModuleList(nn.GRU(width, params.hidden, batch_first=True) for width in widths)
        self.projection = nn.Linear(params.hidden, params.embedding)
        glorot_normal(self)

    @override
    def read(self, tokens: Tensor, starts: Tensor, candidates: int) -> tuple[Tensor, Context]:
        """As in the base class. A layer of the context is its state (R, E * ``candidates``, D) at these positions."""
        place = starts.repeat_interleave(candidates, dim=1)
        rows = torch.arange(len(tokens), device=tokens.device)[:, None]
        x, kept = self.dropout(self.embedding(tokens)), []
        for layer in cast(list[nn.GRU], self.layers):
            x, _ = layer(x)
            kept.append(x[rows, place])
        return x, Context(along=x[:, :0], layers=kept, mask=tokens == PAD, lengths=place + 1)

    @override
    def extend(self, context: Context, tokens: Tensor, past: Past | None = None) -> tuple[Tensor, Past]:
        shape = tokens.shape[:2]
        before = [state.last for state in past] if past else context.layers
        x, after = self.dropout(self.embedding(tokens.flatten(0, 1))), []
        for layer, state in zip(cast(list[nn.GRU], self.layers), before, strict=True):
            x, last = layer(x, state.expand(*shape, -1).flatten(0, 1)[None].contiguous())
            after.append(LayerState(last[0].unflatten(0, shape)))
        return x.unflatten(0, shape), tuple(after)

    @override
    def logits(self, hidden: Tensor) -> Tensor:
        return nn.functional.linear(self.projection(hidden), self.embedding.weight)
