"""Direct preference optimisation: the target's whole code against sampled ones, relative to a reference.

Shapes: B batch, N negatives.

Training starts from a trained model, a frozen copy of which is the reference. The reward of a code y is
r(y) = log pi(y|x) - log pi_ref(y|x); r+ is the target's, r_j those of the N negatives.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal, Self

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt, model_validator
from torch import Tensor
from torch.nn.functional import logsigmoid
from typing_extensions import override

from apao.objectives.base import OBJECTIVES, Needs, Objective, Outcome, Scores, State, cross_entropy
from apao.parameters import SpelledObjective


def rewards(scores: Scores) -> tuple[Tensor, Tensor]:
    """Rewards r+ (B,) and r_j (B, N). Without a reference model the reference is uniform, and cancels."""
    assert scores.negative_logp is not None
    chosen, rejected = scores.target_logp.sum(dim=1), scores.negative_logp.sum(dim=2)
    if scores.reference is not None:
        assert scores.reference.negative_logp is not None
        chosen = chosen - scores.reference.target_logp.sum(dim=1)
        rejected = rejected - scores.reference.negative_logp.sum(dim=2)
    return chosen, rejected


def softmax_preference(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """S-DPO (B,): -log sigmoid(-log sum_j exp(beta (r_j - r+))) (Chen et al. 2024)."""
    return -logsigmoid(-(beta * (rejected - chosen[:, None])).logsumexp(dim=1))


class Preference(Objective):
    """Base of objectives that contrast whole codes relative to a frozen reference."""

    role = "baseline"

    start: SpelledObjective = "ce"
    """Objective whose trained model is the start and the reference."""
    beta: PositiveFloat = 1.0
    """How strongly the model is held to the reference. The literature tries 0.5, 1 and 2."""
    negatives: PositiveInt = 100
    """Sampled codes per example."""

    @model_validator(mode="after")
    def _eos_is_not_trained(self) -> Self:
        if not self.eos:
            raise ValueError("eos: false has no effect on a preference loss, which does not train eos; remove it")
        return self

    @override
    def needs(self) -> Needs:
        return Needs(negatives=self.negatives, reference=True)

    @property
    @override
    def trains_eos(self) -> bool:
        return False

    @abstractmethod
    def preference(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        """Loss (B,) from the rewards r+ (B,) and r_j (B, N)."""

    @override
    def __call__(self, scores: Scores, state: State) -> Outcome:
        chosen, rejected = rewards(scores)
        loss = self.preference(chosen, rejected).mean()
        preferred = (chosen.detach()[:, None] > rejected.detach()).to(loss.dtype).mean()
        return Outcome(loss, {"preferred": preferred, "reward": chosen.detach().mean()}, state)


@OBJECTIVES.register
class Dpo(Preference):
    """DPO: the mean over negatives of -log sigmoid(beta (r+ - r_j)) (Rafailov et al. 2023)."""

    type: Literal["dpo"]

    @override
    def preference(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        return -logsigmoid(self.beta * (chosen[:, None] - rejected)).mean(dim=1)


@OBJECTIVES.register
class Dmpo(Preference):
    """DMPO: -log sigmoid(beta (r+ - mean_j r_j)) (Bai et al. 2024)."""

    type: Literal["dmpo"]

    @override
    def preference(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        return -logsigmoid(self.beta * (chosen - rejected.mean(dim=1)))


@OBJECTIVES.register
class SoftmaxDpo(Preference):
    """S-DPO: -log sigmoid(-log sum_j exp(beta (r_j - r+))) (Chen et al. 2024)."""

    type: Literal["s-dpo"]

    @override
    def preference(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        return softmax_preference(chosen, rejected, self.beta)


@OBJECTIVES.register
class CrossEntropyAndSoftmaxDpo(Objective):
    """CE + lambda * S-DPO, in one stage (paper Table 3).

    With ``start``, that trained model is the reference. Without it the training starts from random weights and
    the reference is uniform.
    """

    type: Literal["ce+s-dpo"]
    beta: PositiveFloat = 1.0
    """Factor on the rewards in the S-DPO term."""
    lam: NonNegativeFloat = 1.0
    """Weight of the S-DPO term."""
    negatives: PositiveInt = 100
    """Sampled codes per example."""

    @override
    def needs(self) -> Needs:
        return Needs(negatives=self.negatives, reference=self.start is not None)

    @override
    def __call__(self, scores: Scores, state: State) -> Outcome:
        ce = cross_entropy(scores, self.eos)
        preference = softmax_preference(*rewards(scores), self.beta).mean()
        terms = {"ce": ce.detach(), "preference": preference.detach()}
        return Outcome(ce + self.lam * preference, terms, state)
