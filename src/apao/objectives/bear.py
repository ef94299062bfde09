"""BEAR: beam-search-aware regularisation (Yang et al. 2026).

Shapes: B batch, T levels, V vocabulary.

Every token of the target is asked to be among the ``beam`` most likely continuations of its own prefix,
a condition that beam search needs and that, unlike the search itself, is cheap to train. All
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
    """Cross-entropy over legal tokens, and a penalty that compares each with the last one the beam keeps.

    With s_t the target's log-probability at step t and b_t the ``beam``-th largest probability there (the
    smallest legal one where fewer are legal; no gradient flows through it). The penalty falls as s_t rises
    above log b_t:

    * ``paper``: sum_t -s_t + lambda * sum_t log sigmoid((log b_t - s_t) / xi), mean over the batch.
    * ``release``: the CE with weights 1 + lambda' sigmoid((s_t - log b_t) / xi), detached and normalised
      over the batch's tokens with more than one legal continuation.

    With lambda' = lambda / xi both have the same gradient direction: the derivative of the paper's
    penalty by s_t is -lambda / xi * sigmoid((s_t - log b_t) / xi), and tokens with one legal
    continuation have none.
    """

    type: Literal["bear"]
    form: Literal["release", "paper"] = "release"
    """The authors' gradient-equivalent weights, or the loss as the paper writes it."""
    xi: PositiveFloat = 2.75
    """Softness of the condition, in units of log-probability."""
    lam: NonNegativeFloat = 0.25
    """lambda' of the release; the paper's lambda is ``lam`` times ``xi``."""
    beam: PositiveInt = 20
    """Beam size that training prepares for."""

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
            # A batch without any choice to make has nothing to train.
            loss = -(weights * chosen).sum() / weights.sum().clamp(min=torch.finfo(chosen.dtype).tiny)
        terms = {"msl": -chosen.detach().mean(), "in_beam": (margin.detach() >= 0).to(chosen.dtype).mean()}
        return Outcome(loss, terms, state)


def threshold(logp: Tensor, legal: Tensor, beam: int) -> Tensor:
    """log b (B, T): the ``beam``-th largest of ``logp`` (B, T, V), or the smallest of the ``legal`` (B, T) ones."""
    best = logp.topk(min(beam, logp.shape[-1]), dim=-1).values
    return best.gather(-1, legal.clamp(max=best.shape[-1])[..., None] - 1)[..., 0]
