"""From logits to log-probabilities: the one place that says which softmax a model is trained and decoded with.

Shapes: V vocabulary, C tokens to choose from.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from apao.codes.vocabulary import EOS


def at_least_fp32(logits: Tensor) -> Tensor:
    """``logits``, widened where they are of half precision."""
    return logits if logits.dtype == torch.float64 else logits.float()


def token_logp(logits: Tensor, tokens: Tensor) -> Tensor:
    """Log-probability of ``tokens`` (...) under a softmax over all of ``logits`` (..., V), in at least fp32."""
    logits = at_least_fp32(logits)
    # One fused kernel each way.
    loss = nn.functional.cross_entropy(logits.flatten(0, -2), tokens.flatten(), reduction="none")
    return -loss.view_as(tokens)


class Softmax(NamedTuple):
    """How logits become probabilities. The default is the paper's: over the whole vocabulary."""

    legal_only: bool = False
    """Only tokens that continue the prefix to a code of the catalogue take part (``msl``, ``bear``)."""
    temperature: float = 1.0
    """The logits are divided by it first."""

    def scaled(self, logits: Tensor, legal: Tensor | None) -> Tensor:
        """Logits (..., V) that an ordinary softmax turns into the probabilities; ``legal`` is bool (..., V)."""
        logits = at_least_fp32(logits) / self.temperature
        if not self.legal_only:
            return logits
        assert legal is not None
        return logits.masked_fill(~legal, -torch.inf)

    def logp(self, logits: Tensor, legal: Tensor | None) -> Tensor:
        """Log-probabilities (..., V); every row needs a legal token."""
        return self.scaled(logits, legal).log_softmax(dim=-1)

    def logp_of(self, logits: Tensor, tokens: Tensor, legal: Tensor) -> Tensor:
        """Log-probabilities (..., C) of ``tokens`` (..., C); those where ``legal`` is true are all legal ones."""
        logits = at_least_fp32(logits) / self.temperature
        chosen = logits.gather(-1, tokens)
        if self.legal_only:
            return chosen.masked_fill(~legal, -torch.inf).log_softmax(dim=-1)
        return chosen - logits.logsumexp(dim=-1, keepdim=True)

    @property
    def scores_eos(self) -> bool:
        """Whether eos after a whole code changes a score. Nothing else is legal there, so among legal tokens not."""
        return not self.legal_only

    def closing(self, logits: Tensor) -> Tensor:
        """Log-probability of eos after a whole code: (..., V) -> (...), where it is not 0 (``scores_eos``)."""
        return self.logp(logits, None)[..., EOS]


PLAIN = Softmax()
