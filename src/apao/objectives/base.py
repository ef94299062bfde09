"""The interface of an objective.

Shapes: B batch, T levels, N negatives per example, V vocabulary.

An objective is a model of its hyper-parameters (an entry in params.yaml) and one pure function from the
scores of a batch (``Scores``) and the objective's own state to a loss, named terms and the next state.
Inputs beyond the target's logits are declared in ``needs``; the training loop supplies them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from apao.backbones.softmax import Softmax, token_logp
from apao.codes.statistics import CodeStatistics
from apao.codes.vocabulary import EOS
from apao.parameters import Model, Registry, SpelledObjective

State = Mapping[str, Tensor]
"""Tensors that an objective carries from step to step; checkpointed with the model. Empty for most objectives."""


class Needs(NamedTuple):
    """Inputs of an objective beyond the target's logits."""

    negatives: int = 0
    """Codes sampled per example, uniformly with replacement, and drawn again in each epoch."""
    reference: bool = False
    """The scores of the frozen model that the training started from."""
    embeddings: bool = False
    """The items' embeddings, for ``CodeStatistics.level_gains``. They become an input file of the training."""


@dataclass(frozen=True, eq=False)
class Scores:
    """The scores that a backbone gives to one batch.

    Attributes:
        logits: (B, T, V) at the steps that predict the target's codes.
        targets: (B, T) token ids of the target's code.
        prefixes: (B, T) ids of the target's prefixes of length 1 .. T (states of the catalogue's trie).
        statistics: facts about all codes, computed when first used.
        eos_logits: (B, V) at the step after the code; None unless the objective trains eos.
        negative_logp: (B, N, T) token log-probabilities of the sampled codes; None unless declared in ``needs``.
        negative_prefixes: (B, N, T) ids of their prefixes; None likewise.
        reference: scores of the same batch by the frozen reference; None unless declared in ``needs``.
        step_examples: examples of the whole optimizer step that this batch is a part of; None outside training.
    """

    logits: Tensor
    targets: Tensor
    prefixes: Tensor
    statistics: CodeStatistics
    eos_logits: Tensor | None = None
    negative_logp: Tensor | None = None
    negative_prefixes: Tensor | None = None
    reference: Scores | None = None
    step_examples: int | None = None

    @cached_property
    def target_logp(self) -> Tensor:
        """s_t (B, T): log-probability of each token of the target, by a softmax over the whole vocabulary."""
        return token_logp(self.logits, self.targets)

    @cached_property
    def eos_logp(self) -> Tensor:
        """(B,) log-probability of eos after the code; 0 where eos is not trained."""
        if self.eos_logits is None:
            return self.target_logp.new_zeros(len(self.targets))
        return token_logp(self.eos_logits, torch.full_like(self.targets[:, 0], EOS))

    @property
    def prefix_logp(self) -> Tensor:
        """S_m (B, T): log-probability of the target's prefix of length m = 1 .. T."""
        return self.target_logp.cumsum(dim=1)

    @cached_property
    def legal(self) -> Tensor:
        """Bool (B, T, V): the legal continuations of the target's prefix at each step."""
        before = self.prefixes.roll(1, dims=1)
        before[:, 0] = 0
        return self.statistics.trie.legal(before)


class Outcome(NamedTuple):
    """Result of an objective for one batch."""

    loss: Tensor
    """Scalar to minimise."""
    terms: dict[str, Tensor]
    """Named scalars for the log, detached."""
    state: State
    """The state for the next step."""


class Objective(Model, ABC):
    """Hyper-parameters and loss of one objective."""

    type: str
    eos: bool = True
    """Also train the eos step after the code, as the authors' release does; false: the paper's Eq. 4."""
    start: SpelledObjective | None = None
    """Objective, spelled as in a run name, whose trained weights this one starts from; null: random weights."""
    tuned: Mapping[str, dict[str, Any]] = Field(default_factory=dict)
    """Values for one ``dataset`` or ``dataset/backbone``; the more specific entry wins."""

    role: ClassVar[Literal["proposed", "baseline", "other"]] = "other"
    """In the APAO paper: proposed there, a baseline of its Table 1, or neither."""
    release_selects_on_last_batch: ClassVar[bool] = False
    """Whether the authors' trainer selects this objective's checkpoint on the last validation batch."""

    def needs(self) -> Needs:
        """Inputs that the training loop must supply."""
        return Needs()

    @property
    def trains_eos(self) -> bool:
        """Whether the loss includes the eos step. If not, the probability of eos is meaningless."""
        return self.eos

    @property
    def softmax(self) -> Softmax:
        """The softmax for training and decoding."""
        return Softmax()

    def initial_state(self, levels: int, device: torch.device) -> State:
        """State before the first step; an ``nn.Parameter`` in it is learned with the model."""
        return {}

    def check_levels(self, levels: int) -> None:
        """Check the hyper-parameters against the number of levels of the codes.

        Raises:
            ValueError: when they do not fit.
        """

    @abstractmethod
    def __call__(self, scores: Scores, state: State) -> Outcome:
        """The loss of a batch: a mean over its examples, or over their tokens where the class says so."""


OBJECTIVES: Registry[Objective] = Registry("objective", "apao.objectives")


def cross_entropy(scores: Scores, eos: bool) -> Tensor:
    """Mean over the batch of -(1/T) sum_t s_t (paper Eq. 4); with ``eos`` the mean is over T + 1 tokens."""
    return weighted_cross_entropy(scores, eos, 1.0)


def weighted_cross_entropy(scores: Scores, eos: bool, weights: Tensor | float) -> Tensor:
    """``cross_entropy`` of w_t s_t, with weights w broadcastable to (B, T); eos, where trained, has weight 1."""
    levels = scores.targets.shape[1]
    total = (weights * scores.target_logp).sum(dim=1)
    return -(total + scores.eos_logp if eos else total).mean() / (levels + eos)
