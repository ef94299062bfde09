"""The interface of a backbone, and the layers that backbones share.

Shapes: B batch, L history tokens, C candidates per history, S new tokens per candidate, P cached tokens
per candidate, D width, H heads, d head width, V vocabulary; R sequences of L tokens with E starts of candidates each.

A backbone encodes a batch of histories once (``encode``) and scores any number of candidate codes against
that encoding: in training, target and candidates in the same pass; in decoding, later (``extend``).
Nothing of the history is computed or copied per candidate.
Padding side, start tokens and position offsets are internal to each backbone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from typing_extensions import override

from apao.parameters import Model, Registry


class BackboneParams(Model, ABC):
    """Sizes of a backbone, as in params.yaml; builds the model."""

    type: str
    max_history: PositiveInt = 20
    """Maximum number of items in a history; the latest are kept."""

    decodes_eos: ClassVar[bool]
    """Whether the authors' release decodes a closing eos and divides scores by T + 1."""

    recordable: ClassVar[bool] = True
    """Whether a GPU may record and replay its passes (``training.replays``)."""

    @property
    def packs(self) -> bool:
        """Whether training reads all examples of a user in one sequence (see ``training.packing``)."""
        return False

    @abstractmethod
    def build(self, vocabulary: int) -> Backbone:
        """A model for ``vocabulary`` tokens, freshly initialised from torch's global generator."""

    def to_load(self, vocabulary: int, folder: Path) -> Backbone:
        """A model for the trained weights in ``folder``, whose ``config.json`` the training has written.

        Raises:
            UserError: when the files of ``folder`` are needed for that, and are missing or damaged.
        """
        return self.build(vocabulary)

    def own_files(self) -> tuple[Path, ...]:
        """The user's own files that a training depends on, such as those of a pre-trained model.

        Raises:
            UserError: when they are missing.
        """
        return ()

    @abstractmethod
    def transformers_config(self, vocabulary: int) -> dict[str, Any]:
        """Content of the ``config.json`` with which the ``transformers`` class loads the saved weights.

        Where there is no such class it has no ``architectures``, and keys of our own.
        """

    @classmethod
    @abstractmethod
    def from_transformers_config(cls, config: dict[str, Any]) -> BackboneParams:
        """Inverse of ``transformers_config``: sizes of a model saved by ``transformers``.

        Raises:
            UserError: when a size is missing, or that model computes something other than this backbone.
        """


class CausalParams(BackboneParams):
    """Sizes of a causal backbone (``Backbone.read``), which can be trained on packed sequences."""

    pack: bool = False
    """Train on all examples of a user in one sequence: the same losses, many times faster, but batches are drawn
    by user instead of by example."""

    decodes_eos: ClassVar[bool] = False

    @property
    @override
    def packs(self) -> bool:
        return self.pack


BACKBONES: Registry[BackboneParams] = Registry("backbone", "apao.backbones")


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


@dataclass(frozen=True, eq=False)
class Context:
    """Encoded histories, as ``encode`` returns them.

    Attributes:
        along: (B, 1 + S, D) final hidden states after the history and after each token of the target.
        after: (B, C, S, D) final hidden states after each token of the candidates given to ``encode``, or None.
        layers: one entry per layer; the type depends on the backbone.
        mask: attention mask of the history's tokens; form and shape depend on the backbone, and some read none.
        lengths: (B, 1) or (B, C) number of tokens before the first candidate token.
    """

    along: Tensor
    layers: Sequence[Any]
    mask: Tensor
    lengths: Tensor
    after: Tensor | None = None

    @property
    def start(self) -> Tensor:
        """(B, D) final hidden state that predicts the first token."""
        return self.along[:, 0]


Past = tuple[Any, ...]
"""The backbone's cache of the candidates' own tokens: named tuples of tensors (B, C, ...), such as ``KeyValues``."""


class Backbone(nn.Module, ABC):
    """A model p(code | history)."""

    params: BackboneParams
    vocabulary: int

    @abstractmethod
    def encode(self, history: Tensor, target: Tensor | None = None, candidates: Tensor | None = None) -> Context:
        """Encode histories, and in training the codes that follow them.

        Args:
            history: (B, L) token ids, oldest first, padded with 0 on the right; no history is empty.
            target: (B, S) the target's code or a prefix of it, whose states become ``along`` of the context.
            candidates: (B, C, S) further codes or prefixes, whose states become ``after``. A candidate attends
                to the history and itself, not to the target or another candidate.
        """

    @abstractmethod
    def extend(self, context: Context, tokens: Tensor, past: Past | None = None) -> tuple[Tensor, Past]:
        """Feed ``tokens`` (B, C, S) after the history and, if given, after the cached tokens.

        Returns the final hidden states (B, C, S, D), each of which predicts the next token, and the cache
        extended by S tokens. A candidate attends to the history and itself, not to another candidate.
        """

    def read(self, tokens: Tensor, starts: Tensor, candidates: int) -> tuple[Tensor, Context]:
        """Causal states of whole sequences, and a context for candidates in the middle of them.

        ``tokens`` (R, L) are padded on the right; ``starts`` (R, E) are indices into them. Returns the
        states (R, L, D) and a context in which ``candidates`` codes continue each of these positions:
        candidate e * ``candidates`` + c of row r attends to the tokens up to ``starts[r, e]``. ``along`` of
        the context is empty. Only implemented by backbones whose ``params.packs`` may be true.
        """
        raise NotImplementedError

    def reorder(self, past: Past, parents: Tensor) -> Past:
        """The cache for C' new candidates, each of which continues candidate ``parents`` (B, C') of the old C."""
        rows = torch.arange(len(parents), device=parents.device)[:, None]
        return tuple(type(entry)(*(value[rows, parents] for value in entry)) for entry in past)

    @abstractmethod
    def logits(self, hidden: Tensor) -> Tensor:
        """Logits (..., V) over the vocabulary, from final hidden states (..., D)."""

    def decayed(self) -> list[nn.Parameter]:
        """Parameters that get weight decay: matrices and embeddings, not the scales of norms."""
        return [parameter for parameter in self.parameters() if parameter.dim() > 1]

    def learned_state(self) -> dict[str, Tensor]:
        """``state_dict`` without parameters that training does not change, and with tied parameters once."""
        learned = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        others = {name for name, _ in self.named_parameters(remove_duplicate=False)} - learned
        return {name: value for name, value in self.state_dict().items() if name not in others}

    def load_learned_state(self, state: Mapping[str, Tensor]) -> None:
        """Inverse of ``learned_state``; raises RuntimeError when a name or shape does not fit."""
        learned = self.learned_state()
        kept = {name: value for name, value in self.state_dict().items() if name not in learned}
        self.load_state_dict({**state, **kept})

    def transformers_config(self) -> dict[str, Any]:
        """``transformers_config`` of the parameters, for this model's vocabulary."""
        return self.params.transformers_config(self.vocabulary)

    @abstractmethod
    def to_transformers(self) -> dict[str, Tensor]:
        """The weights under the key names of the ``transformers`` class, or our own where there is none."""

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
