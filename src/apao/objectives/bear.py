"""BEAR: beam-search-aware regularisation (Yang et al. 2026).

Shapes: B batch, T levels, V vocabulary.

Every token of the target should be among the ``beam`` most likely continuations of its own prefix. This is
necessary for beam search to find the target and, unlike the search itself, cheap to train. All
probabilities are under the softmax over legal tokens, as in MSL.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn.functional import logsigmoid
from typing_extensions import override

from apao.objectives.base import OBJECTIVES, Outcome, Scores, State
from apao.objectives.likelihood import LegalLikelihood


@OBJECTIVES.register
class Bear(LegalLikelihood):
    """Cross-entropy over legal tokens, plus a penalty that compares each token with the last one the beam keeps.

    s_t is the target's log-probability at step t, b_t the ``beam``-th largest probability there (the
    smallest legal one where fewer are legal; no gradient flows through it). The penalty decreases as s_t rises
    above log b_t:

    * ``paper``: sum_t -s_t + lambda * sum_t log sigmoid((log b_t - s_t) / xi), mean over the batch.
    * ``release``: the CE with weights 1 + lambda' sigmoid((s_t - log b_t) / xi), detached and normalised
      over the batch's tokens with more than one legal continuation.

    With ``eos`` that token is decoded; no loss depends on it, since nothing else is legal after a code.

    With lambda' = lambda / xi both have the same gradient direction: the derivative of the paper's
    penalty by s_t is -lambda / xi * sigmoid((s_t - log b_t) / xi), and tokens with one legal
    continuation have none.
    """

    type: Literal["bear"]
    form: Literal["release", "paper"] = "release"
    """``release``: gradient-equivalent weights, as in the authors' code; ``paper``: the loss as printed."""
    xi: PositiveFloat = 2.75
    """Softness of the condition, in units of log-probability."""
    lam: NonNegativeFloat = 0.25
    """lambda' of the release; the paper's lambda is ``lam`` times ``xi``."""
    beam: PositiveInt = 20
    """Beam size assumed in training."""

    @override
    def __call__(self, scores: Scores, state: State) -> Outcome:
        logp = self.legal_logits(scores).log_softmax(dim=-1)
        chosen = logp.gather(-1, scores.targets[..., None])[..., 0]
        legal = scores.legal.sum(dim=-1)
        margin = (chosen - threshold(logp.detach(), legal, self.beam)) / self.xi
        if self.form == "paper":
            nll = -chosen.sum(dim=1).mean()
            penalty = logsigmoid(-margin).sum(dim=1).mean()
            loss = nll + self.lam * self.xi * penalty
        else:
            open_steps = (legal > 1).to(chosen.dtype)
            weights = (1 + self.lam * margin.detach().sigmoid()) * open_steps
            # Where no step has more than one legal token, the loss is 0.
            loss = -(weights * chosen).sum() / weights.sum().clamp(min=torch.finfo(chosen.dtype).tiny)
        # As ``msl`` itself counts: after the code only eos is legal, so its loss is 0.
        msl = -chosen.detach().sum(dim=1).mean() / (chosen.shape[1] + self.eos)
        terms = {"msl": msl, "in_beam": (margin.detach() >= 0).to(chosen.dtype).mean()}
        return Outcome(loss, terms, state)


def threshold(logp: Tensor, legal: Tensor, beam: int) -> Tensor:
    """log b (B, T): the ``beam``-th largest of ``logp`` (B, T, V), or the smallest of the ``legal`` (B, T) ones."""
    best = logp.topk(min(beam, logp.shape[-1]), dim=-1).values
    return best.gather(-1, legal.clamp(max=best.shape[-1])[..., None] - 1)[..., 0]
