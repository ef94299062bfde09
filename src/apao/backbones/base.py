"""The interface of a backbone.

Shapes: B batch, L history tokens, C candidates per history, S new tokens per candidate, P cached tokens
per candidate, D width, H heads, d head width, V vocabulary; R sequences of L tokens with E starts of candidates each.

A backbone encodes a batch of histories once (``encode``) and scores any number of candidate codes against
that encoding: in training, target and candidates in the same pass; in decoding, later (``extend``).
Nothing of the history is computed or copied per candidate.
Padding side, start tokens and position offsets are internal to each backbone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from typing_extensions import override

from apao.backbones.exchange import load_named
from apao.codes.vocabulary import PAD
from apao.parameters import Model, Registry


class BackboneParams(Model, ABC):
    """Sizes of a backbone, as in params.yaml; builds the model."""

    type: str
    max_history: PositiveInt = 20
    """Maximum number of items in a history; the latest are kept."""

    release_decodes_eos: ClassVar[bool]
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

    release_decodes_eos: ClassVar[bool] = False

    @property
    @override
    def packs(self) -> bool:
        return self.pack


BACKBONES: Registry[BackboneParams] = Registry("backbone", "apao.backbones")


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
    tied_names: ClassVar[Collection[str]] = ()
    """Further names under which files of ``transformers`` may have copies of tied weights."""

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

    def transformers_names(self) -> dict[str, str]:
        """Our names of the weights to those in the ``transformers`` class; where there is none, our own."""
        return {name: name for name in self.state_dict()}

    def to_transformers(self) -> dict[str, Tensor]:
        """The weights under their ``transformers_names``."""
        state = self.state_dict()
        return {foreign: state[ours] for ours, foreign in self.transformers_names().items()}

    def load_transformers(self, weights: dict[str, Tensor]) -> None:
        """Inverse of ``to_transformers``; raises UserError when a name or shape does not fit."""
        load_named(self, self.transformers_names(), weights, self.tied_names)


def followed_by(history: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor]:
    """Histories (B, L) that the target's tokens (B, S) follow in place of padding, and the positions to read.

    Returns:
        tokens (B, L + S), and positions (B, 1 + S) of the history's last token and of each token of the target.
    """
    fed = 0 if target is None else target.shape[1]
    places = (history != PAD).sum(dim=1, keepdim=True) - 1 + torch.arange(1 + fed, device=history.device)
    if target is None:
        return history, places
    return nn.functional.pad(history, (0, fed), value=PAD).scatter(1, places[:, 1:], target), places
