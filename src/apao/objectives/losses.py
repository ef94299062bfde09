"""The prefix losses as ``torch`` modules on log-probabilities of tokens, for use with any model.

Shapes: B batch, T levels, N negatives.

    criterion = PairwisePrefixLoss(levels=4, beta=0.2, eta=3e-5)
    loss = criterion(target_logp, negative_logp)    # (B, T) and (B, N, T), each the log-softmax at the token

The loss is CE + beta * sum_m w_m L_m. The weights w have no gradient. Every call in training mode shifts them
towards the prefix length with the largest loss. They are a buffer and so part of the module's ``state_dict``. The
objectives of params.yaml (``apao.objectives.apao``) use the same functions and also offer the forms of the
authors' release.
"""

from __future__ import annotations

import math
from typing import get_args

import torch
from torch import Tensor, nn

from apao.objectives.functional import (
    Weighting,
    log_prefix_weights,
    pairwise_prefix_losses,
    pointwise_prefix_losses,
)


class PrefixLoss(nn.Module):
    """Cross-entropy plus the weighted losses of all prefixes; a subclass defines these."""

    log_prefix_weights: Tensor

    def __init__(self, levels: int, beta: float = 0.1, eta: float = 1e-4, weights: Weighting = "eq17") -> None:
        """Start with equal weights.

        Args:
            levels: T, tokens per item code.
            beta: strength of the prefix losses.
            eta: step size of the weights.
            weights: ``eq17`` or ``algorithm1`` (paper), ``release`` (authors' code) or ``uniform``.

        Raises:
            ValueError: for other weights, no level, or a beta or eta that is negative or not finite; in a call, for
                tensors of other shapes.
        """
        super().__init__()
        if weights not in get_args(Weighting):
            raise ValueError(f"weights={weights!r}: expected one of {', '.join(get_args(Weighting))}")
        if levels < 1 or not 0 <= beta < math.inf or not 0 <= eta < math.inf:
            raise ValueError(f"levels={levels}, beta={beta}, eta={eta}: expected levels from 1, beta and eta from 0")
        self.beta, self.eta, self.weights = beta, eta, weights
        self.register_buffer("log_prefix_weights", torch.full((levels,), -math.log(levels)))

    def _check(self, logp: Tensor, name: str, shape: str) -> None:
        levels = len(self.log_prefix_weights)
        if logp.dim() != shape.count(",") + 1 or logp.shape[-1] != levels or not logp.numel():
            raise ValueError(f"{name} {tuple(logp.shape)}: expected {shape} with T = levels = {levels}, and not empty")

    def _total(self, target_logp: Tensor, losses: Tensor) -> Tensor:
        kept = torch.ones_like(losses, dtype=torch.bool)
        updated = log_prefix_weights(losses.detach(), kept, self.weights, self.eta, self.log_prefix_weights)
        if self.training:
            self.log_prefix_weights.copy_(updated)
        return self.beta * (updated.exp() * losses).sum() - target_logp.mean()


class PointwisePrefixLoss(PrefixLoss):
    """APAO-pointwise: L_m = -S_m / m, S_m being the log-probability of the target's prefix of length m."""

    def forward(self, target_logp: Tensor) -> Tensor:
        """The loss (scalar) from the log-probabilities (B, T) of the target's tokens."""
        self._check(target_logp, "target_logp", "(B, T)")
        return self._total(target_logp, pointwise_prefix_losses(target_logp.cumsum(dim=1)))


class PairwisePrefixLoss(PrefixLoss):
    """APAO-pairwise: L_m = -log(e^S_m / (e^S_m + sum_j e^S_m^j)) / m over N sampled codes j.

    The paper's Eq. 14, divided by m as in its Algorithm 1.
    """

    def forward(self, target_logp: Tensor, negative_logp: Tensor) -> Tensor:
        """The loss (scalar) from the log-probabilities of the tokens of the target (B, T) and negatives (B, N, T)."""
        self._check(target_logp, "target_logp", "(B, T)")
        self._check(negative_logp, "negative_logp", "(B, N, T)")
        if len(negative_logp) != len(target_logp):
            raise ValueError(f"target_logp has {len(target_logp)} examples, negative_logp {len(negative_logp)}")
        margins = negative_logp.cumsum(dim=2) - target_logp.cumsum(dim=1)[:, None]
        return self._total(target_logp, pairwise_prefix_losses(margins))
