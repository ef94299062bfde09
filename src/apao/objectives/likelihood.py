"""Teacher-forced likelihood."""

from __future__ import annotations

from typing import Literal

from typing_extensions import override

from apao.objectives.base import OBJECTIVES, Objective, Outcome, Scores, State, cross_entropy


@OBJECTIVES.register
class CrossEntropy(Objective):
    """Next-token cross-entropy, the objective of TIGER (paper Eq. 4)."""

    type: Literal["ce"]

    @override
    def __call__(self, scores: Scores, state: State) -> Outcome:
        loss = cross_entropy(scores, self.eos)
        return Outcome(loss, {"ce": loss.detach()}, state)
