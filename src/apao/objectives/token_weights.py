"""Cross-entropy with a weight for every token.

Shapes: B batch, T levels, V vocabulary.

    loss = -(1/T) sum_t w_t s_t, or over T + 1 tokens with eos, whose weight is 1

``front-greater``, ``frequency`` and ``multi-target`` are from Token-Weighted Multi-Target Learning
(Chiu et al. 2026); ``igd`` and ``position`` are baselines of that paper.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeFloat
from torch import Tensor, nn
from typing_extensions import override

from apao.objectives.base import (
    OBJECTIVES,
    Needs,
    Objective,
    Outcome,
    Scores,
    State,
    cross_entropy,
    weighted_cross_entropy,
)

Share = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]


def front_greater(scores: Scores) -> Tensor:
    """Weights (T,) proportional to log(1 + g_l), with sum T; g_l is the gain of level l (``level_gains``).

    A negative gain, where a level moves items further from their centres (K-means does not exclude that), counts
    as 0. If no level has a gain (a catalogue of one item), all weights are 1.
    """
    weights = scores.statistics.level_gains.to(scores.target_logp.dtype).clamp(min=0).log1p()
    total = weights.sum()
    return torch.where(total > 0, weights * len(weights) / total.clamp(min=1e-30), 1.0)


def frequency(scores: Scores, b: float) -> Tensor:
    """(B, T) weights (1 - b) / (1 - b^n), n being the token's count among training targets; the sum per code is T.

    A token that no training target has (only a validation or test item) counts as seen once.
    """
    # In double precision, because 1 - b^n would be lost to rounding for b near 1.
    count = scores.statistics.token_counts.clamp(min=1).double()
    weights = ((1 - b) / (1 - b**count))[scores.targets]
    return (weights * weights.shape[1] / weights.sum(dim=1, keepdim=True)).to(scores.target_logp.dtype)


class TokenWeighted(Objective):
    """Base of objectives whose token weights are not learned."""

    @abstractmethod
    def token_weights(self, scores: Scores) -> Tensor:
        """Weights w, broadcastable to (B, T)."""

    @override
    def __call__(self, scores: Scores, state: State) -> Outcome:
        loss = weighted_cross_entropy(scores, self.eos, self.token_weights(scores))
        return Outcome(loss, {"ce": cross_entropy(scores, self.eos).detach()}, state)


@OBJECTIVES.register
class FrontGreater(TokenWeighted):
    """Larger weights for levels that bring items nearer to their cluster's centre (Chiu et al. 2026)."""

    type: Literal["front-greater"]

    @override
    def needs(self) -> Needs:
        return Needs(embeddings=True)

    @override
    def token_weights(self, scores: Scores) -> Tensor:
        return front_greater(scores)


@OBJECTIVES.register
class Frequency(TokenWeighted):
    """Larger weights for rare tokens, by the inverse effective number (1 - b) / (1 - b^n) (Chiu et al. 2026)."""

    type: Literal["frequency"]
    b: Decay = 0.99
    """Base of the effective number (1 - b^n) / (1 - b) of n occurrences; 0 gives all tokens the same weight."""

    @override
    def token_weights(self, scores: Scores) -> Tensor:
        return frequency(scores, self.b)


@OBJECTIVES.register
class Position(TokenWeighted):
    """Weights that fall linearly with the level, from 1 to ``beta``."""

    type: Literal["position"]
    beta: Share = 0.5
    """Weight of the last level."""

    @override
    def token_weights(self, scores: Scores) -> Tensor:
        return torch.linspace(1, self.beta, scores.targets.shape[1], device=scores.targets.device)


@OBJECTIVES.register
class InformationGain(TokenWeighted):
    """IGD: weight ``beta`` for tokens without information gain, 1 for all others (Lin et al. 2025).

    A token's information gain is the entropy of the code before the token minus that after it, with the shares of
    the training targets as probabilities. It is 0 where the prefix leaves only one code that is a target.
    """

    type: Literal["igd"]
    beta: Share = 0.1
    """Weight of a token whose information gain is 0."""

    @override
    def token_weights(self, scores: Scores) -> Tensor:
        gain = scores.statistics.information_gain[scores.prefixes]
        return torch.where(gain == 0, self.beta, 1.0).to(scores.target_logp.dtype)


@OBJECTIVES.register
class MultiTarget(Objective):
    """A learned mixture of CE, front-greater and frequency (Chiu et al. 2026).

    loss = sum_k m_k L_k with m_k = p_k exp(-a_k) / sum_j p_j exp(-a_j), where a is learned from 0 and the pace p_k
    depends on the step: exp(-c step) for CE and front-greater, 1 - exp(-c step) for frequency.
    """

    type: Literal["multi-target"]
    b: Decay = 0.99
    """Base of the effective number, as in ``frequency``."""
    pace: bool = True
    """Use the paces, as in the paper; the release computes them but does not use them (all p_k = 1)."""
    c: NonNegativeFloat = 2e-5
    """Rate of the paces, per step."""

    @override
    def needs(self) -> Needs:
        return Needs(embeddings=True)

    @override
    def initial_state(self, levels: int, device: torch.device) -> State:
        return {
            "mixture": nn.Parameter(torch.zeros(3, device=device)),
            "step": torch.zeros((), device=device),
        }

    @override
    def __call__(self, scores: Scores, state: State) -> Outcome:
        losses = torch.stack(
            [
                cross_entropy(scores, self.eos),
                weighted_cross_entropy(scores, self.eos, front_greater(scores)),
                weighted_cross_entropy(scores, self.eos, frequency(scores, self.b)),
            ]
        )
        log_pace = torch.zeros_like(losses)
        if self.pace:
            # log(1 - exp(-x)) without loss of digits; at the first step the share of frequency is 0.
            elapsed = (self.c * state["step"]).to(losses.dtype)
            log_pace = torch.stack([-elapsed, -elapsed, torch.log(-torch.expm1(-elapsed))])
        mixture = (log_pace - state["mixture"]).softmax(dim=0)
        loss = (mixture * losses).sum()
        names = ("ce", "front_greater", "frequency")
        terms = dict(zip(names, losses.detach(), strict=True))
        terms |= {f"share_{name}": value for name, value in zip(names, mixture.detach(), strict=True)}
        return Outcome(loss, terms, {**state, "step": state["step"] + 1})
