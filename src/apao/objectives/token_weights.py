"""Cross-entropy with a weight on every token.

Shapes: B batch, T levels, V vocabulary.

    loss = -(1/T) sum_t w_t s_t, or over T + 1 tokens with eos, whose weight is 1

``front-greater``, ``frequency`` and ``multi-target`` are those of Token-Weighted Multi-Target Learning
(Chiu et al. 2026), ``igd`` and ``position`` the baselines beside them.
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
    """(T,) proportional to log(1 + g_l), with sum T; g_l is the gain of level l (``Catalogue.level_gains``).

    A level after which the items are further from their centres, which K-means does not exclude, counts
    as gaining nothing. All 1 where no level gains anything (a catalogue of one item).
    """
    weights = scores.catalogue.level_gains.to(scores.target_logp.dtype).clamp(min=0).log1p()
    total = weights.sum()
    return torch.where(total > 0, weights * len(weights) / total.clamp(min=1e-30), 1.0)


def frequency(scores: Scores, b: float) -> Tensor:
    """(B, T): (1 - b) / (1 - b^n) of each token, n its count among training targets, with sum T a code.

    A token that no training target has (only a validation or test item does) counts as seen once.
    """
    # In double precision: in single, a b near 1 leaves nothing of 1 - b^n.
    count = scores.catalogue.token_counts.clamp(min=1).double()
    weights = ((1 - b) / (1 - b**count))[scores.targets]
    return (weights * weights.shape[1] / weights.sum(dim=1, keepdim=True)).to(scores.target_logp.dtype)


class TokenWeighted(Objective):
    """What the objectives share whose token weights are fixed."""

    @abstractmethod
    def token_weights(self, scores: Scores) -> Tensor:
        """w, broadcastable to (B, T)."""

    @override
    def __call__(self, scores: Scores, state: State) -> Outcome:
        loss = weighted_cross_entropy(scores, self.eos, self.token_weights(scores))
        return Outcome(loss, {"ce": cross_entropy(scores, self.eos).detach()}, state)


@OBJECTIVES.register
class FrontGreater(TokenWeighted):
    """Levels that bring the items nearer to their group's centre weigh more (Chiu et al. 2026)."""

    type: Literal["front-greater"]

    @override
    def needs(self) -> Needs:
        return Needs(embeddings=True)

    @override
    def token_weights(self, scores: Scores) -> Tensor:
        return front_greater(scores)


@OBJECTIVES.register
class Frequency(TokenWeighted):
    """Rare tokens weigh more, by their effective number (1 - b^n) / (1 - b) (Chiu et al. 2026)."""

    type: Literal["frequency"]
    b: Decay = 0.99
    """How fast more occurrences stop counting; 0 weighs all tokens alike."""

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
    """IGD: a token that narrows nothing down weighs ``beta``, every other 1 (Lin et al. 2025).

    A token's information gain is the entropy of the item before it minus that after it, under the item
    prior of the training targets; it is 0 where the prefix leaves one item to expect.
    """

    type: Literal["igd"]
    beta: Share = 0.1
    """Weight of a token whose information gain is 0."""

    @override
    def token_weights(self, scores: Scores) -> Tensor:
        gain = scores.catalogue.information_gain[scores.prefixes]
        return torch.where(gain == 0, self.beta, 1.0).to(scores.target_logp.dtype)


@OBJECTIVES.register
class MultiTarget(Objective):
    """A learned mixture of CE, front-greater and frequency (Chiu et al. 2026).

    loss = sum_k m_k L_k with m_k = p_k exp(-a_k) / sum_j p_j exp(-a_j), a learned from 0 and p_k the pace
    after so many steps: exp(-c step) for CE and front-greater, 1 - exp(-c step) for frequency.
    """

    type: Literal["multi-target"]
    b: Decay = 0.99
    """The same as in ``frequency``."""
    pace: bool = True
    """Use the paces, as the paper does; the release computes them and leaves them out (all p_k = 1)."""
    c: NonNegativeFloat = 2e-5
    """Speed of the paces, a step."""

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
            # log(1 - exp(-x)) without loss of digits; at the first step frequency has no share.
            elapsed = (self.c * state["step"]).to(losses.dtype)
            log_pace = torch.stack([-elapsed, -elapsed, torch.log(-torch.expm1(-elapsed))])
        mixture = (log_pace - state["mixture"]).softmax(dim=0)
        loss = (mixture * losses).sum()
        names = ("ce", "front_greater", "frequency")
        terms = dict(zip(names, losses.detach(), strict=True))
        terms |= {f"share_{name}": value for name, value in zip(names, mixture.detach(), strict=True)}
        return Outcome(loss, terms, {**state, "step": state["step"] + 1})
