"""The contract every objective keeps.

Shapes: B batch, T levels, N negatives an example, V vocabulary.

An objective is its hyper-parameters (a model in params.yaml) and one pure function from what the
backbone says of a batch (``Scores``) and the objective's own state to a loss, named terms and the
next state. What it needs beyond the target's logits it declares in ``needs``; the training loop
supplies that and nothing else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal, NamedTuple, Self

import torch
from pydantic import Field
from torch import Tensor

from apao.codes.itemcodes import EOS
from apao.registry import Model, Registry

Need = Literal["negatives"]
State = Mapping[str, Tensor]
"""What an objective carries from step to step; checkpointed with the model. Mostly empty."""


@dataclass(frozen=True)
class Scores:
    """What a backbone says of one batch.

    Attributes:
        logits: (B, T, V) at the steps that predict the target's codes.
        targets: (B, T) token ids of the target's code.
        eos_logits: (B, V) at the step after the code; None unless the objective trains eos.
        negatives: (B, N, T) token ids of the sampled codes, where declared as needed.
        negative_logp: (B, N, T) their token log-probabilities, where declared.
        prefix_counts: number of distinct legal prefixes of length 1 .. T in the catalogue.
    """

    logits: Tensor
    targets: Tensor
    prefix_counts: tuple[int, ...]
    eos_logits: Tensor | None = None
    negatives: Tensor | None = None
    negative_logp: Tensor | None = None

    @classmethod
    def of(
        cls,
        logits: Tensor,
        targets: Tensor,
        prefix_counts: tuple[int, ...],
        negatives: Tensor | None,
        negative_logp: Tensor | None,
    ) -> Self:
        """From logits (B, T, V), or (B, T + 1, V) where the step after the code is scored too."""
        levels = targets.shape[1]
        closing = logits[:, levels] if logits.shape[1] > levels else None
        return cls(logits[:, :levels], targets, prefix_counts, closing, negatives, negative_logp)

    @cached_property
    def target_logp(self) -> Tensor:
        """s_t (B, T): log-probability of each code of the target, softmax over the whole vocabulary."""
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


def token_logp(logits: Tensor, tokens: Tensor) -> Tensor:
    """Log-probability of ``tokens`` (...) under ``logits`` (..., V), in at least fp32."""
    if logits.dtype != torch.float64:
        logits = logits.float()
    chosen = logits.gather(-1, tokens[..., None])[..., 0]
    return chosen - logits.logsumexp(dim=-1)


class Outcome(NamedTuple):
    """What one call of an objective gives."""

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
    """Train the eos step after the code too, as the authors' release does; false is the paper's Eq. 4."""
    tuned: Mapping[str, dict[str, Any]] = Field(default_factory=dict)
    """Values for one ``dataset`` or ``dataset/backbone``; the more specific entry wins."""

    needs: ClassVar[frozenset[Need]] = frozenset()
    release_selects_on_last_batch: ClassVar[bool] = False
    """Whether the authors' trainer selects this objective's checkpoint on the last validation batch."""

    def negatives_per_example(self) -> int:
        """How many negatives to sample for each example; more than 0 only if declared in ``needs``."""
        return 0

    def initial_state(self, levels: int, device: torch.device) -> State:
        """State before the first step."""
        return {}

    def check_levels(self, levels: int) -> None:
        """Raise ValueError when the hyper-parameters do not suit codes of that many levels."""

    @abstractmethod
    def __call__(self, scores: Scores, state: State) -> Outcome:
        """The loss of a batch (mean over its examples)."""


OBJECTIVES: Registry[Objective] = Registry("objective", "apao.objectives")


def cross_entropy(scores: Scores, eos: bool) -> Tensor:
    """Mean over the batch of -(1/T) sum_t s_t (paper Eq. 4), or over T + 1 tokens with eos."""
    levels = scores.targets.shape[1]
    if eos:
        return -(scores.target_logp.sum(dim=1) + scores.eos_logp).mean() / (levels + 1)
    return -scores.target_logp.sum(dim=1).mean() / levels
