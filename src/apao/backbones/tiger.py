"""TIGER: a T5 encoder reads the history, a T5 decoder writes the code.

Equal to ``T5ForConditionalGeneration`` of ``transformers`` (ReLU, tied embeddings) on the same weights;
shapes as in ``base``. Encoder input: tokens of the history, then eos. Decoder input: pad as the start token,
then the code.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from typing_extensions import override

from apao.backbones.base import BACKBONES, Backbone, BackboneParams, Context, Past
from apao.backbones.dropout import Dropout
from apao.backbones.exchange import check_config, config_size, probability
from apao.backbones.layers import KeyValues, RMSNorm, causal_mask, merge_heads, padding_mask, project, split_candidates
from apao.backbones.softmax import at_least_fp32
from apao.codes.vocabulary import EOS, PAD

RELATIVE_BUCKETS, MAX_DISTANCE = 32, 128
NORM_EPS = 1e-6


@BACKBONES.register
class TigerParams(BackboneParams):
    """Sizes of the T5 of TIGER (Rajput et al. 2023). Defaults are the APAO paper's."""

    type: Literal["tiger"]
    d_model: PositiveInt = 128
    d_ff: PositiveInt = 1024
    d_kv: PositiveInt = 64
    heads: PositiveInt = 6
    encoder_layers: PositiveInt = 4
    decoder_layers: PositiveInt = 4
    dropout: probability = 0.1

    release_decodes_eos: ClassVar[bool] = True

    @override
    def build(self, vocabulary: int) -> Tiger:
        return Tiger(self, vocabulary)

    @override
    def transformers_config(self, vocabulary: int) -> dict[str, Any]:
        return {
            "model_type": "t5",
            "architectures": ["T5ForConditionalGeneration"],
            "vocab_size": vocabulary,
            "d_model": self.d_model,
            "d_ff": self.d_ff,
            "d_kv": self.d_kv,
            "num_heads": self.heads,
            "num_layers": self.encoder_layers,
            "num_decoder_layers": self.decoder_layers,
            "dropout_rate": self.dropout,
            "relative_attention_num_buckets": RELATIVE_BUCKETS,
            "relative_attention_max_distance": MAX_DISTANCE,
            "layer_norm_epsilon": NORM_EPS,
            "feed_forward_proj": "relu",
            "tie_word_embeddings": True,
            "scale_decoder_outputs": True,
            "pad_token_id": PAD,
            "eos_token_id": EOS,
            "decoder_start_token_id": PAD,
        }

    @classmethod
    @override
    def from_transformers_config(cls, config: dict[str, Any]) -> TigerParams:
        check_config(
            config,
            {
                "relative_attention_num_buckets": (RELATIVE_BUCKETS, 32),
                "relative_attention_max_distance": (MAX_DISTANCE, 128),
                "layer_norm_epsilon": (NORM_EPS, 1e-6),
                "feed_forward_proj": ("relu", "relu"),
                # Derived from feed_forward_proj by transformers, and written beside it.
                "dense_act_fn": ("relu", "relu"),
                "is_gated_act": (False, False),
                "tie_word_embeddings": (True, True),
                "scale_decoder_outputs": (True, True),
                "decoder_start_token_id": (PAD, PAD),
            },
        )
        # null: as many decoder layers as encoder layers.
        decoder = "num_layers" if config.get("num_decoder_layers") is None else "num_decoder_layers"
        return cls(
            type="tiger",
            d_model=config_size(config, "d_model"),
            d_ff=config_size(config, "d_ff"),
            d_kv=config_size(config, "d_kv"),
            heads=config_size(config, "num_heads"),
            encoder_layers=config_size(config, "num_layers"),
            decoder_layers=config_size(config, decoder),
            dropout=config.get("dropout_rate", 0.1),
        )


def relative_buckets(distance: Tensor, bidirectional: bool) -> Tensor:
    """T5's bucket of each distance (key position - query position): exact for small ones, logarithmic beyond."""
    buckets, offset = RELATIVE_BUCKETS, torch.zeros_like(distance)
    if bidirectional:
        buckets //= 2
        offset = (distance > 0) * buckets
        distance = distance.abs()
    else:
        distance = (-distance).clamp(min=0)
    exact = buckets // 2
    logarithmic = torch.log(distance.clamp(min=1).float() / exact) / math.log(MAX_DISTANCE / exact)
    far = (exact + (logarithmic * (buckets - exact)).long()).clamp(max=buckets - 1)
    return offset + torch.where(distance < exact, distance, far)


class Attention(nn.Module):
    """Projections of one T5 attention layer (no biases, scores not scaled), in fp32 also under autocast.

    Unscaled scores grow to tens, where the spacing of bf16 numbers is 1/8: the gradients of queries and keys
    would be off by 20 %.
    """

    def __init__(self, params: TigerParams) -> None:
        super().__init__()
        inner = params.heads * params.d_kv
        self.heads = params.heads
        self.q = nn.Linear(params.d_model, inner, bias=False)
        self.k = nn.Linear(params.d_model, inner, bias=False)
        self.v = nn.Linear(params.d_model, inner, bias=False)
        self.o = nn.Linear(inner, params.d_model, bias=False)
        nn.init.normal_(self.q.weight, std=(params.d_model * params.d_kv) ** -0.5)
        nn.init.normal_(self.k.weight, std=params.d_model**-0.5)
        nn.init.normal_(self.v.weight, std=params.d_model**-0.5)
        nn.init.normal_(self.o.weight, std=inner**-0.5)

    def project(self, x: Tensor) -> tuple[Tensor, KeyValues]:
        """(..., S, D) -> queries, keys and values, each (..., H, S, d)."""
        queries, keys, values = self._fp32(x, self.q, self.k, self.v)
        return queries, KeyValues(keys, values)

    def queries(self, x: Tensor) -> Tensor:
        """(..., S, D) -> (..., H, S, d)."""
        return self._fp32(x, self.q)[0]

    def keys_values(self, x: Tensor) -> KeyValues:
        """(..., S, D) -> keys and values (..., H, S, d)."""
        return KeyValues(*self._fp32(x, self.k, self.v))

    def _fp32(self, x: Tensor, *projections: nn.Linear) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return project(at_least_fp32(x), self.heads, *projections)


def attend(queries: Tensor, memory: KeyValues, bias: Tensor, dropout: nn.Module) -> Tensor:
    """Attention (..., H, S, d) of queries (..., H, S, d) over (..., H, L, d); bias broadcastable to (..., H, S, L)."""
    with torch.autocast(queries.device.type, enabled=False):
        scores = queries @ memory.keys.transpose(-1, -2) + bias
        mixed: Tensor = dropout(scores.softmax(dim=-1)) @ memory.values
    return mixed


class FeedForward(nn.Module):
    """Norm, widen, ReLU, narrow, residual."""

    def __init__(self, params: TigerParams) -> None:
        super().__init__()
        self.norm = RMSNorm(params.d_model, NORM_EPS)
        self.wi = nn.Linear(params.d_model, params.d_ff, bias=False)
        self.wo = nn.Linear(params.d_ff, params.d_model, bias=False)
        self.dropout = Dropout(params.dropout)
        nn.init.normal_(self.wi.weight, std=params.d_model**-0.5)
        nn.init.normal_(self.wo.weight, std=params.d_ff**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        inner = self.dropout(self.wi(self.norm(x)).relu())
        return x + self.dropout(self.wo(inner))


class EncoderLayer(nn.Module):
    """Self-attention over the history, then the feed-forward block."""

    def __init__(self, params: TigerParams) -> None:
        super().__init__()
        self.norm = RMSNorm(params.d_model, NORM_EPS)
        self.attention = Attention(params)
        self.feed_forward = FeedForward(params)
        self.dropout = Dropout(params.dropout)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D), with an additive attention bias broadcastable to (B, H, L, L)."""
        mixed = attend(*self.attention.project(self.norm(x)), bias, self.dropout)
        return self.feed_forward(x + self.dropout(self.attention.o(merge_heads(mixed))))


class DecoderLayer(nn.Module):
    """Self-attention over start token and candidate, cross-attention over the history, feed-forward."""

    def __init__(self, params: TigerParams) -> None:
        super().__init__()
        self.self_norm = RMSNorm(params.d_model, NORM_EPS)
        self.self_attention = Attention(params)
        self.cross_norm = RMSNorm(params.d_model, NORM_EPS)
        self.cross_attention = Attention(params)
        self.feed_forward = FeedForward(params)
        self.dropout = Dropout(params.dropout)

    def first_pass(
        self, x: Tensor, leading: int, candidates: int, bias: Tensor, memory: KeyValues, mask: Tensor
    ) -> tuple[Tensor, KeyValues]:
        """The layer over the start token, the target and C candidates of S tokens in a single pass.

        A candidate attends to the start token and itself, not to the target or another candidate.

        Args:
            x: (B, leading + C * S, D): start token and target, then the candidates one after another.
            leading: number of tokens of start and target.
            candidates: C; may be 0.
            bias: relative bias and causal mask (H, N, N) of the decoder positions 0 .. N - 1.
            memory: keys and values of the history (B, H, L, d).
            mask: additive mask of the history.

        Returns:
            (B, leading + C * S, D), and the keys and values of the start token (B, H, 1, d).
        """
        queries, own = self.self_attention.project(self.self_norm(x))
        if candidates:
            (queries, own), (candidate_queries, candidate_own) = split_candidates(queries, own, leading, candidates)
        mixed = attend(queries, own, bias[:, :leading, :leading], self.dropout)
        start = KeyValues(own.keys[:, :, :1], own.values[:, :, :1])
        if candidates:
            visible = start.repeated(candidates, dim=2).append(candidate_own)  # (B, H, C, 1 + S, d)
            length = visible.keys.shape[-2]
            on_candidates = attend(candidate_queries, visible, bias[:, None, 1:length, :length], self.dropout)
            mixed = torch.cat([mixed, on_candidates.flatten(2, 3)], dim=2)
        return self._cross(self._add_mixed(x, mixed), memory, mask), start

    def forward(
        self, x: Tensor, past: KeyValues, bias: Tensor, memory: KeyValues, mask: Tensor
    ) -> tuple[Tensor, KeyValues]:
        """The layer over new tokens of C candidates (B, C, S, D).

        ``past`` are keys and values (B, C, H, P, d) of the start token and of earlier tokens. Returns
        (B, C, S, D) and ``past`` extended by the new tokens.
        """
        queries, own = self.self_attention.project(self.self_norm(x))
        own = past.append(own)
        x = self._add_mixed(x, attend(queries, own, bias, self.dropout))
        # In cross-attention the candidates are just more queries of the same example.
        return self._cross(x.flatten(1, 2), memory, mask).unflatten(1, x.shape[1:3]), own

    def _add_mixed(self, x: Tensor, mixed: Tensor) -> Tensor:
        return x + self.dropout(self.self_attention.o(merge_heads(mixed)))

    def _cross(self, x: Tensor, memory: KeyValues, mask: Tensor) -> Tensor:
        mixed = attend(self.cross_attention.queries(self.cross_norm(x)), memory, mask, self.dropout)
        return self.feed_forward(x + self.dropout(self.cross_attention.o(merge_heads(mixed))))


class Tiger(Backbone):
    """The T5 of TIGER (``TigerParams``) as a backbone."""

    params: TigerParams
    # Some versions of transformers save the tied embedding once, others three times.
    tied_names = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")

    def __init__(self, params: TigerParams, vocabulary: int) -> None:
        super().__init__()
        self.params, self.vocabulary = params, vocabulary
        self.embedding = nn.Embedding(vocabulary, params.d_model)
        self.encoder_bias = nn.Embedding(RELATIVE_BUCKETS, params.heads)
        self.decoder_bias = nn.Embedding(RELATIVE_BUCKETS, params.heads)
        nn.init.normal_(self.encoder_bias.weight, std=params.d_model**-0.5)
        nn.init.normal_(self.decoder_bias.weight, std=params.d_model**-0.5)
        self.encoder = nn.ModuleList(EncoderLayer(params) for _ in range(params.encoder_layers))
        self.encoder_norm = RMSNorm(params.d_model, NORM_EPS)
        self.decoder = nn.ModuleList(DecoderLayer(params) for _ in range(params.decoder_layers))
        self.decoder_norm = RMSNorm(params.d_model, NORM_EPS)
        self.dropout = Dropout(params.dropout)

    @override
    def encode(self, history: Tensor, target: Tensor | None = None, candidates: Tensor | None = None) -> Context:
        encoded, mask = self._encode_history(history)
        leading = history.new_full((len(history), 1), PAD)
        if target is not None:
            leading = torch.cat([leading, target], dim=1)
        return self._decode_first_pass(encoded, mask, leading, candidates)

    def _encode_history(self, history: Tensor) -> tuple[Tensor, Tensor]:
        """Encoder states (B, L + 1, D) of the histories (B, L) with eos, and their padding mask (B, 1, 1, L + 1)."""
        lengths = (history != PAD).sum(dim=1, keepdim=True)
        tokens = nn.functional.pad(history, (0, 1), value=PAD).scatter(1, lengths, EOS)
        mask = padding_mask(tokens != PAD)
        position = torch.arange(tokens.shape[1], device=tokens.device)
        buckets = relative_buckets(position[None, :] - position[:, None], bidirectional=True)
        bias = self.encoder_bias(buckets).permute(2, 0, 1).float() + mask
        x = self.dropout(self.embedding(tokens))
        for layer in self.encoder:
            x = layer(x, bias)
        return self.dropout(self.encoder_norm(x)), mask

    def _decode_first_pass(self, encoded: Tensor, mask: Tensor, leading: Tensor, candidates: Tensor | None) -> Context:
        """The decoder over start token and target, ``leading`` (B, P), and the candidates (B, C, S) in a single pass.

        Each layer keeps the keys and values of the start token and those of the history for ``extend``.
        """
        (batch, known), count = leading.shape, 0
        tokens, longest = leading, known
        if candidates is not None:
            count, longest = candidates.shape[1], max(known, 1 + candidates.shape[2])
            tokens = torch.cat([leading, candidates.flatten(1)], dim=1)
        bias = self._decoder_bias(longest)
        x = self.dropout(self.embedding(tokens))
        layers = []
        for layer in cast(list[DecoderLayer], self.decoder):
            memory = layer.cross_attention.keys_values(encoded)
            x, start = layer.first_pass(x, known, count, bias, memory, mask)
            layers.append((start, memory))
        states = self.dropout(self.decoder_norm(x))
        return Context(
            along=states[:, :known],
            layers=layers,
            mask=mask,
            lengths=leading.new_ones(batch, 1),
            after=states[:, known:].unflatten(1, (count, -1)) if count else None,
        )

    @override
    def extend(self, context: Context, tokens: Tensor, past: Past | None = None) -> tuple[Tensor, Past]:
        new = tokens.shape[-1]
        # The start token has position 0 and is the first entry of every candidate's cache.
        total = new + (past[0].keys.shape[-2] if past else 1)
        bias = self._decoder_bias(total)[:, -new:]
        x = self.dropout(self.embedding(tokens))
        cache = []
        for i, layer in enumerate(cast(list[DecoderLayer], self.decoder)):
            start, memory = context.layers[i]
            x, own = layer(x, past[i] if past else start.repeated(tokens.shape[1]), bias, memory, context.mask)
            cache.append(own)
        return self.dropout(self.decoder_norm(x)), tuple(cache)

    @override
    def decayed(self) -> list[nn.Parameter]:
        # The release's trainer exempts every parameter whose name contains "bias".
        biases = (self.encoder_bias.weight, self.decoder_bias.weight)
        return [parameter for parameter in super().decayed() if not any(parameter is bias for bias in biases)]

    @override
    def logits(self, hidden: Tensor) -> Tensor:
        return nn.functional.linear(hidden * self.params.d_model**-0.5, self.embedding.weight)

    def _decoder_bias(self, length: int) -> Tensor:
        """Relative bias plus causal mask (H, S, S) of the decoder positions 0 .. S - 1, S being ``length``."""
        position = torch.arange(length, device=self.decoder_bias.weight.device)
        distance = position[None, :] - position[:, None]
        bias: Tensor = self.decoder_bias(relative_buckets(distance, bidirectional=False))
        return bias.permute(2, 0, 1).float() + causal_mask(length, length, position.device)

    @override
    def transformers_names(self) -> dict[str, str]:
        names = {
            "embedding.weight": "shared.weight",
            "encoder_norm.weight": "encoder.final_layer_norm.weight",
            "decoder_norm.weight": "decoder.final_layer_norm.weight",
        }
        for stack, layers in (("encoder", self.encoder), ("decoder", self.decoder)):
            names[f"{stack}_bias.weight"] = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
            self_name = "attention" if stack == "encoder" else "self_attention"
            norm_name = "norm" if stack == "encoder" else "self_norm"
            last = 1 if stack == "encoder" else 2
            for i in range(len(layers)):
                ours, theirs = f"{stack}.{i}", f"{stack}.block.{i}.layer"
                for part in "qkvo":
                    names[f"{ours}.{self_name}.{part}.weight"] = f"{theirs}.0.SelfAttention.{part}.weight"
                    if stack == "decoder":
                        names[f"{ours}.cross_attention.{part}.weight"] = f"{theirs}.1.EncDecAttention.{part}.weight"
                names[f"{ours}.{norm_name}.weight"] = f"{theirs}.0.layer_norm.weight"
                if stack == "decoder":
                    names[f"{ours}.cross_norm.weight"] = f"{theirs}.1.layer_norm.weight"
                names[f"{ours}.feed_forward.norm.weight"] = f"{theirs}.{last}.layer_norm.weight"
                for part in ("wi", "wo"):
                    names[f"{ours}.feed_forward.{part}.weight"] = f"{theirs}.{last}.DenseReluDense.{part}.weight"
        return names
