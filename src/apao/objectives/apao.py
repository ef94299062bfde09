"""Adaptive prefix-aware optimisation (APAO): cross-entropy plus a weighted loss on every prefix.

Shapes: B batch, T levels, N negatives.

    loss = CE + beta * sum_m w_m L_m,    m = 1 .. T

L_m is a loss on the prefixes of length m. The weights w favour the prefix length with the largest loss and have
no gradient. The paper and the authors' release define both differently; every form has a name here.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import ClassVar, Literal

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator
from torch import Tensor
from typing_extensions import override

from apao.objectives.base import OBJECTIVES, Needs, Objective, Outcome, Scores, State, cross_entropy
from apao.objectives.functional import (
    Weighting,
    first_occurrences,
    log_prefix_weights,
    pairwise_prefix_losses,
    pointwise_prefix_losses,
)

FORWARD_EXAMPLES = 128
"""Examples per forward pass in the paper's training; 8 passes make an optimizer step."""
RELEASE_EPSILON = 1e-12
"""Constant in the denominator of the release's pairwise loss."""
CARRIED = "log_prefix_weights"
"""Key of log w (T,) in the state."""


class PrefixObjective(Objective):
    """Common part of APAO-pointwise and APAO-pairwise."""

    beta: NonNegativeFloat = 0.1
    """Strength of the prefix losses; 0 trains plain cross-entropy."""
    eta: NonNegativeFloat = 1e-4
    """Step size of the weights: the larger, the more they favour the prefix with the largest loss."""
    weights: Weighting = "release"
    """``eq17`` and ``algorithm1`` update w throughout the training; ``release`` computes it from each batch alone."""
    carry: Literal["micro-batch", "step"] = "micro-batch"
    """How often carried weights are updated: once per forward pass of 128 examples, as in Algorithm 1 (8 times
    per step of 1,024, whatever the micro-batches here), or once per optimizer step."""
    ce: bool = True
    """Keep the cross-entropy term (false: the first module ablation of Figure 2)."""
    drop_level: NonNegativeInt | None = Field(default=None)
    """Leave out the loss on the prefix that ends at this level, counted from 0 (Figure 2b)."""

    role = "proposed"
    release_selects_on_last_batch: ClassVar[bool] = True

    @model_validator(mode="after")
    def _each_key_has_an_effect(self) -> PrefixObjective:
        if not self.ce and self.beta == 0:
            raise ValueError("ce: false with beta: 0 leaves nothing to train; set one of them")
        if self.carry == "step" and not self.carries:
            raise ValueError(f"carry: step has no effect with weights: {self.weights}, which has no state; remove it")
        return self

    @override
    def check_levels(self, levels: int) -> None:
        if self.drop_level is not None and self.drop_level >= levels:
            raise ValueError(f"drop_level {self.drop_level}: codes of {levels} levels have levels 0 to {levels - 1}")
        if self.drop_level is not None and levels == 1:
            raise ValueError("drop_level 0: codes of one level have no other prefix to train")

    @property
    @override
    def trains_eos(self) -> bool:
        return self.eos and self.ce

    @property
    def carries(self) -> bool:
        """Whether the weights are carried from step to step."""
        return self.weights in ("eq17", "algorithm1")

    @override
    def initial_state(self, levels: int, device: torch.device) -> State:
        return {CARRIED: torch.full((levels,), -math.log(levels), device=device)} if self.carries else {}

    def updates(self, scores: Scores) -> int:
        """Number of updates of the weights in the optimizer step that the batch is a part of."""
        if not self.carries or self.carry == "step" or scores.step_examples is None:
            return 1
        return math.ceil(scores.step_examples / FORWARD_EXAMPLES)

    @abstractmethod
    def prefix_losses(self, scores: Scores) -> Tensor:
        """L_m (T,): mean over the batch of the loss on the prefix of length m."""

    @override
    def __call__(self, scores: Scores, state: State) -> Outcome:
        losses = self.prefix_losses(scores)
        kept = torch.ones_like(losses, dtype=torch.bool)
        if self.drop_level is not None:
            kept[self.drop_level] = False
        carried, updates = state.get(CARRIED), self.updates(scores)

        def weights_after(number: float) -> Tensor:
            return log_prefix_weights(losses.detach(), kept, self.weights, self.eta * number, carried)

        # n updates with nearly equal losses are one update with n times eta. The loss uses the weights of the
        # middle forward pass of the step.
        weights = weights_after((updates + 1) / 2).exp()
        prefix = (weights * torch.where(kept, losses, 0.0)).sum()
        ce = cross_entropy(scores, self.trains_eos)
        loss = self.beta * prefix + (ce if self.ce else 0.0)
        terms = {"ce": ce.detach(), "prefix": prefix.detach()}
        for m, (one, weight) in enumerate(zip(losses.detach(), weights, strict=True), start=1):
            terms[f"prefix_loss_{m}"], terms[f"prefix_weight_{m}"] = one, weight
        return Outcome(loss, terms, {CARRIED: weights_after(updates)} if CARRIED in state else state)


@OBJECTIVES.register
class Pointwise(PrefixObjective):
    """APAO with L_m = -S_m / m, the mean negative log-likelihood of the prefix."""

    type: Literal["apao-pointwise"]

    @override
    def prefix_losses(self, scores: Scores) -> Tensor:
        return pointwise_prefix_losses(scores.prefix_logp)


@OBJECTIVES.register
class Pairwise(PrefixObjective):
    """APAO with a softmax of the target's prefix against those of sampled negatives (paper Eq. 14)."""

    type: Literal["apao-pairwise"]
    negatives: PositiveInt = 100
    """Sampled codes per example."""
    candidates: Literal["plain", "release"] = "release"
    """``plain`` sums over all negatives; ``release`` drops repeated prefixes, scales the sum up and adds 1e-12."""
    divide_by_length: bool = True
    """Divide L_m by m, as Algorithm 1 and the release do and Eq. 14 does not."""

    @override
    def needs(self) -> Needs:
        return Needs(negatives=self.negatives)

    @override
    def prefix_losses(self, scores: Scores) -> Tensor:
        assert scores.negative_logp is not None and scores.negative_prefixes is not None
        margins = scores.negative_logp.cumsum(dim=2) - scores.prefix_logp[:, None]
        if self.candidates == "plain":
            return pairwise_prefix_losses(margins, divide_by_length=self.divide_by_length)
        keep = first_occurrences(scores.prefixes, scores.negative_prefixes)
        # The sum over the kept candidates is scaled up to all other legal prefixes of that length.
        kept = keep.sum(dim=1) + 1
        log_scale = ((scores.statistics.prefix_counts - 1) / kept).clamp(min=torch.finfo(margins.dtype).tiny).log()
        margins = margins.masked_fill(~keep, -torch.inf) + log_scale[:, None]
        # Not negligible early in training, when probabilities of whole codes are of this order.
        epsilon = math.log(RELEASE_EPSILON) - scores.prefix_logp[:, None]
        own = torch.cat([torch.zeros_like(epsilon), epsilon], dim=1)
        return pairwise_prefix_losses(margins, own, self.divide_by_length)
