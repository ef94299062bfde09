"""Likelihood under teacher forcing, over all tokens or over the legal ones."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveFloat
from torch import Tensor
from typing_extensions import override

from apao.backbones.softmax import Softmax, token_logp
from apao.objectives.base import OBJECTIVES, Objective, Outcome, Scores, State, cross_entropy


@OBJECTIVES.register
class CrossEntropy(Objective):
    """Next-token cross-entropy, the objective of TIGER (paper Eq. 4)."""

    role = "baseline"

    type: Literal["ce"]

    @override
    def __call__(self, scores: Scores, state: State) -> Outcome:
        loss = cross_entropy(scores, self.eos)
        return Outcome(loss, {"ce": loss.detach()}, state)


class LegalLikelihood(Objective):
    """Base of objectives with a softmax over only the legal continuations of the target's prefix."""

    tau: PositiveFloat = 1.0
    """Temperature of the softmax in training and decoding. The MSL paper tries 1, 2 and 3."""

    @property
    @override
    def softmax(self) -> Softmax:
        return Softmax(legal_only=True, temperature=self.tau)

    def legal_logits(self, scores: Scores) -> Tensor:
        """(B, T, V): logits over tau, -inf where a token is not legal."""
        return self.softmax.scaled(scores.logits, scores.legal)


@OBJECTIVES.register
class MaskedSoftmax(LegalLikelihood):
    """MSL: cross-entropy under a softmax over the legal tokens only (Wang et al. 2025).

    -(1/T) sum_t log( exp(z_t / tau) / sum over legal v of exp(z_v / tau) ). After the code only eos is
    legal, so the loss of its step is 0; with ``eos`` it counts in the mean, as in the release.
    """

    role = "baseline"

    type: Literal["msl"]

    @override
    def __call__(self, scores: Scores, state: State) -> Outcome:
        logp = token_logp(self.legal_logits(scores), scores.targets)
        loss = -logp.sum(dim=1).mean() / (logp.shape[1] + self.eos)
        # Not named ce, because the likelihood is among legal tokens and not among all tokens.
        return Outcome(loss, {"msl": loss.detach()}, state)
