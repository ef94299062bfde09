"""A small Llama that reads the history and continues it with the item code.

Equal to ``LlamaForCausalLM`` of ``transformers`` (no grouped heads, tied embeddings) on the same weights; shapes as in
``base``. Dropout, which that class lacks, is off by default. The last token of the history predicts the first token of
the code; there is no bos. The release pads on the left; rotary positions are relative, so padding on the right is
equivalent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from pydantic import PositiveInt, model_validator
from torch import Tensor, nn
from typing_extensions import override

from apao.backbones.base import BACKBONES, Backbone, CausalParams, Context, Past, followed_by
from apao.backbones.dropout import Dropout
from apao.backbones.exchange import check_config, config_size, probability
from apao.backbones.layers import (
    KeyValues,
    RMSNorm,
    additive_mask,
    candidate_attention,
    causal_attention,
    causal_mask,
    merge_heads,
    padding_mask,
    project,
    split_candidates,
)
from apao.backbones.softmax import at_least_fp32
from apao.codes.vocabulary import EOS, PAD
from apao.errors import UserError

ROPE_THETA = 500_000.0
NORM_EPS = 1e-5
INITIALIZER_RANGE = 0.02


@BACKBONES.register
class LlamaParams(CausalParams):
    """Sizes of the decoder-only backbone. Defaults are the paper's."""

    type: Literal["llama"]
    hidden: PositiveInt = 128
    intermediate: PositiveInt = 1024
    heads: PositiveInt = 8
    layers: PositiveInt = 8
    dropout: probability = 0.0
    """Of the embeddings and of what attention and MLP add. The paper's has none, nor has transformers' class."""

    @model_validator(mode="after")
    def _even_heads(self) -> LlamaParams:
        if self.hidden % (2 * self.heads):
            raise ValueError(f"hidden {self.hidden} must be a multiple of 2 * heads ({2 * self.heads})")
        return self

    @override
    def build(self, vocabulary: int) -> Llama:
        return Llama(self, vocabulary)

    @override
    def transformers_config(self, vocabulary: int) -> dict[str, Any]:
        return {
            "model_type": "llama",
            "architectures": ["LlamaForCausalLM"],
            "vocab_size": vocabulary,
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.heads,
            "num_hidden_layers": self.layers,
            "rms_norm_eps": NORM_EPS,
            "rope_theta": ROPE_THETA,
            "initializer_range": INITIALIZER_RANGE,
            "tie_word_embeddings": True,
            "pad_token_id": PAD,
            "bos_token_id": None,
            "eos_token_id": EOS,
        }

    @classmethod
    @override
    def from_transformers_config(cls, config: dict[str, Any]) -> LlamaParams:
        hidden, heads = config_size(config, "hidden_size"), config_size(config, "num_attention_heads")
        check_config(
            config,
            {
                "num_key_value_heads": (heads, heads),
                "head_dim": (hidden // heads, hidden // heads),
                "rms_norm_eps": (NORM_EPS, 1e-6),
                "hidden_act": ("silu", "silu"),
                "attention_bias": (False, False),
                "mlp_bias": (False, False),
                "tie_word_embeddings": (True, False),
            },
        )
        _check_rotary(config)
        return cls(
            type="llama",
            hidden=hidden,
            intermediate=config_size(config, "intermediate_size"),
            heads=heads,
            layers=config_size(config, "num_hidden_layers"),
        )


def _check_rotary(config: dict[str, Any]) -> None:
    """Check ``rope_theta`` and ``rope_scaling``; transformers 5 writes both as ``rope_parameters``."""
    given = {"rope_theta": config.get("rope_theta")}
    for section in ("rope_scaling", "rope_parameters"):
        values = config.get(section) or {}
        if not isinstance(values, dict):
            raise UserError(f"{section}: expected keys and values, found {values!r}")
        given |= {f"{section}.{key}": value for key, value in values.items()}
    thetas = [key for key in given if key.endswith("rope_theta") and given[key] is not None]
    kinds = [key for key in given if key.endswith((".rope_type", ".type"))]
    check_config(given, dict.fromkeys(thetas or ["rope_theta"], (ROPE_THETA, 10000.0)))
    check_config(given, dict.fromkeys(kinds, ("default", "default")))


class Rotation(torch.autograd.Function):
    """Rotary position embedding: rotate the pairs (i, i + d/2) of (..., S, d) by angles (..., S, d/2), in fp32.

    The gradient of a rotation is the inverse rotation, in a third of the kernels that autograd would use.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """(..., S, d) -> (..., S, d)."""
        ctx.save_for_backward(cos, sin)
        return rotated(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """Rotate by the negative angles; the angles get no gradient."""
        cos, sin = ctx.saved_tensors
        return rotated(grad, cos, -sin), None, None


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The values of the rotation, outside autograd."""
    wide = at_least_fp32(x)
    first, second = wide.chunk(2, dim=-1)
    result = torch.empty_like(wide, memory_format=torch.contiguous_format)
    left, right = result.chunk(2, dim=-1)
    torch.mul(first, cos, out=left).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=right).addcmul_(first, sin)
    return result.to(x.dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """``Rotation`` as a function."""
    result: Tensor = Rotation.apply(x, cos, sin)
    return result


@dataclass(frozen=True)
class Parts:
    """Layout of a sequence that ends with candidates.

    Attributes:
        leading: number of tokens of history and target, with padding.
        candidates: number of codes after them, all of equal length, each continuing the history.
        mask: additive (B, 1, 1, 1, leading), 0 for the tokens of the history.
    """

    leading: int
    candidates: int
    mask: Tensor


class Layer(nn.Module):
    """Self-attention and SwiGLU, each behind a norm and a residual."""

    def __init__(self, params: LlamaParams) -> None:
        super().__init__()
        width, inner = params.hidden, params.intermediate
        self.heads = params.heads
        self.dropout = Dropout(params.dropout)
        self.attention_norm = RMSNorm(width, NORM_EPS)
        self.q = nn.Linear(width, width, bias=False)
        self.k = nn.Linear(width, width, bias=False)
        self.v = nn.Linear(width, width, bias=False)
        self.o = nn.Linear(width, width, bias=False)
        self.mlp_norm = RMSNorm(width, NORM_EPS)
        self.gate = nn.Linear(width, inner, bias=False)
        self.up = nn.Linear(width, inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def project(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, KeyValues]:
        """Queries, keys and values (..., H, S, d) of (..., S, D); queries and keys are rotated by position."""
        parts = project(self.attention_norm(x), self.heads, self.q, self.k, self.v)
        placed, values = parts.split([2, 1])
        queries, keys = rotate(placed, cos, sin)
        return queries, KeyValues(keys, values[0])

    def finish(self, x: Tensor, mixed: Tensor) -> Tensor:
        """Residual and MLP after attention; ``mixed`` is (..., H, S, d)."""
        x = x + self.dropout(self.o(merge_heads(mixed)))
        # Gate and up projection in one matrix product.
        weight = torch.cat([self.gate.weight, self.up.weight])
        gate, up = nn.functional.linear(self.mlp_norm(x), weight).chunk(2, dim=-1)
        return x + self.dropout(self.down(nn.functional.silu(gate) * up))

    def encode(
        self, x: Tensor, cos: Tensor, sin: Tensor, parts: Parts | None = None, places: Tensor | None = None
    ) -> tuple[Tensor, KeyValues]:
        """One layer over causal sequences, with or without candidates after them.

        Args:
            x: (B, L, D), or (B, L + C * S, D) with candidates, where L is ``parts.leading``.
            cos: of the rotary angles of each position of ``x``.
            sin: likewise.
            parts: layout of ``x`` where there are candidates.
            places: (B, P) the only positions of the leading tokens whose output is needed; None for all.

        Returns:
            Output (B, L or P, D) or (B, L or P + C * S, D), and keys and values of the leading tokens.
        """
        queries, memory = self.project(x, cos, sin)
        if parts is not None:
            (queries, memory), (candidate_queries, own) = split_candidates(
                queries, memory, parts.leading, parts.candidates
            )
        # Padding is on the right, so the causal mask alone hides it from all other tokens.
        if places is None:
            mixed = causal_attention(queries, memory.keys, memory.values)
        else:
            rows, leading = torch.arange(len(x), device=x.device)[:, None], queries.shape[2]
            chosen = queries.transpose(1, 2)[rows, places].transpose(1, 2)
            visible = torch.arange(leading, device=x.device) <= places[..., None]
            mixed = causal_attention(chosen, memory.keys, memory.values, visible[:, None])
            x = torch.cat([x[rows, places], x[:, leading:]], dim=1)
        if parts is not None:
            on_candidates = _attend_candidates(candidate_queries, memory, parts.mask, own)
            mixed = torch.cat([mixed, on_candidates.flatten(2, 3)], dim=2)
        return self.finish(x, mixed), memory


def _attend_candidates(queries: Tensor, history: KeyValues, mask: Tensor, own: KeyValues) -> Tensor:
    """Attention of candidates (B, H, C, S, d) over the history and themselves: (B, H, C, S, d)."""
    bias = causal_mask(queries.shape[-2], queries.shape[-2], queries.device)
    # candidate_attention takes (B, C, H, S, d).
    queries, keys, values = (t.transpose(1, 2) for t in (queries, own.keys, own.values))
    mixed = candidate_attention(queries, history, mask, KeyValues(keys, values), bias)
    return mixed.transpose(1, 2)


class Llama(Backbone):
    """A small Llama (``LlamaParams``) as a backbone."""

    params: LlamaParams
    frequencies: Tensor
    tied_names = ("lm_head.weight",)

    def __init__(self, params: LlamaParams, vocabulary: int) -> None:
        super().__init__()
        self.params, self.vocabulary = params, vocabulary
        self.embedding = nn.Embedding(vocabulary, params.hidden)
        self.dropout = Dropout(params.dropout)
        self.layers = nn.ModuleList(Layer(params) for _ in range(params.layers))
        self.norm = RMSNorm(params.hidden, NORM_EPS)
        for parameter in self.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=INITIALIZER_RANGE)
        half = params.hidden // params.heads // 2
        frequencies = ROPE_THETA ** -(torch.arange(half, dtype=torch.float32) / half)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def _angles(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin (..., S, d/2) of the positions (..., S)."""
        angles = positions[..., None].float() * self.frequencies
        return angles.cos(), angles.sin()

    @override
    def encode(self, history: Tensor, target: Tensor | None = None, candidates: Tensor | None = None) -> Context:
        device, lengths = history.device, (history != PAD).sum(dim=1, keepdim=True)
        tokens, places = followed_by(history, target)
        position = torch.arange(tokens.shape[1], device=device)
        mask = padding_mask(position < lengths)[:, :, None]
        parts = None
        if candidates is not None:
            parts = Parts(tokens.shape[1], candidates.shape[1], mask)
            step = torch.arange(candidates.shape[2], device=device).repeat(parts.candidates)
            tokens = torch.cat([tokens, candidates.flatten(1)], dim=1)
            position = torch.cat([position.expand(len(history), -1), lengths + step], dim=1)[:, None]
        cos, sin = self._angles(position)
        x, memories = self.dropout(self.embedding(tokens)), []
        for i, layer in enumerate(cast(list[Layer], self.layers)):
            # Of the last layer's leading tokens only these outputs are used.
            x, memory = layer.encode(x, cos, sin, parts, places if i + 1 == len(self.layers) else None)
            memories.append(memory)
        states, known = self.norm(x), places.shape[1]
        return Context(
            along=states[:, :known],
            layers=memories,
            mask=mask,
            lengths=lengths,
            after=None if parts is None else states[:, known:].unflatten(1, (parts.candidates, -1)),
        )

    @override
    def read(self, tokens: Tensor, starts: Tensor, candidates: int) -> tuple[Tensor, Context]:
        cos, sin = self._angles(torch.arange(tokens.shape[1], device=tokens.device))
        x, memories = self.dropout(self.embedding(tokens)), []
        for layer in cast(list[Layer], self.layers):
            x, memory = layer.encode(x, cos, sin)
            memories.append(memory)
        place = starts.repeat_interleave(candidates, dim=1)
        seen = torch.arange(tokens.shape[1], device=tokens.device) <= place[..., None]
        context = Context(
            along=x[:, :0],
            layers=memories,
            mask=additive_mask(seen)[:, None, :, None],
            lengths=place + 1,
        )
        return self.norm(x), context

    @override
    def extend(self, context: Context, tokens: Tensor, past: Past | None = None) -> tuple[Tensor, Past]:
        new = tokens.shape[-1]
        total = new + (past[0].keys.shape[-2] if past else 0)
        positions = context.lengths[..., None] + torch.arange(total - new, total, device=tokens.device)
        # (B, C or 1, S, d/2) -> (B, C, H, S, d/2) by broadcasting.
        cos, sin = (angle[:, :, None] for angle in self._angles(positions))
        own_bias = causal_mask(new, total, tokens.device)
        x = self.dropout(self.embedding(tokens))
        cache = []
        for i, layer in enumerate(cast(list[Layer], self.layers)):
            queries, own = layer.project(x, cos, sin)
            if past:
                own = past[i].append(own)
            mixed = candidate_attention(queries, context.layers[i], context.mask, own, own_bias)
            x = layer.finish(x, mixed)
            cache.append(own)
        return self.norm(x), tuple(cache)

    @override
    def logits(self, hidden: Tensor) -> Tensor:
        return nn.functional.linear(hidden, self.embedding.weight)

    @override
    def transformers_names(self) -> dict[str, str]:
        names = {"embedding.weight": "model.embed_tokens.weight", "norm.weight": "model.norm.weight"}
        parts = {
            "attention_norm": "input_layernorm",
            "mlp_norm": "post_attention_layernorm",
            **{part: f"self_attn.{part}_proj" for part in "qkvo"},
            **{part: f"mlp.{part}_proj" for part in ("gate", "up", "down")},
        }
        for i in range(len(self.layers)):
            for ours, theirs in parts.items():
                names[f"layers.{i}.{ours}.weight"] = f"model.layers.{i}.{theirs}.weight"
        return names
