"""The formulas of the prefix losses, as functions of log-probabilities.

Shapes: B batch, T levels, N negatives, K terms of the target itself.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Weighting = Literal["eq17", "algorithm1", "release", "uniform"]


def pointwise_prefix_losses(prefix_logp: Tensor) -> Tensor:
    """L_m (T,) = -S_m / m, averaged over the batch; ``prefix_logp`` is S (B, T)."""
    lengths = torch.arange(1, prefix_logp.shape[1] + 1, device=prefix_logp.device)
    return (-prefix_logp / lengths).mean(dim=0)


def pairwise_prefix_losses(margins: Tensor, own: Tensor | None = None, divide_by_length: bool = True) -> Tensor:
    """L_m (T,) = -log(e^S_m / (e^S_m + sum_j e^S_m^j)), averaged over the batch (paper Eq. 14).

    Args:
        margins: S_m^j - S_m (B, N, T), log-probability of each negative's prefix minus that of the target's.
        own: (B, K, T) further margins, for the target itself; by default a single 0.
        divide_by_length: divide L_m by m, as in Algorithm 1 but not in Eq. 14.
    """
    levels = margins.shape[2]
    if own is None:
        own = margins.new_zeros(len(margins), 1, levels)
    # -log(e^S / (e^S + sum e^S_j)) = log(1 + sum e^(S_j - S)); the target's own term is the 0.
    losses = torch.cat([margins, own], dim=1).logsumexp(dim=1).mean(dim=0)
    return losses / torch.arange(1, levels + 1, device=losses.device) if divide_by_length else losses


def log_prefix_weights(losses: Tensor, kept: Tensor, form: Weighting, eta: float, carried: Tensor | None) -> Tensor:
    """log w (T,) from the detached prefix losses (T,) and the carried log w (T,); -inf for levels not kept.

    * ``eq17``: w <- w exp(eta L), normalised, from the carried w (paper Eq. 17).
    * ``algorithm1``: likewise with L / sum L in place of L (paper Algorithm 1).
    * ``release``: (L / sum L) exp(eta L), normalised, nothing carried; non-finite L count as 0.
    * ``uniform``: equal weights (Figure 2a, "without adaptive weights").
    """
    losses = torch.where(kept & losses.isfinite(), losses, 0.0)
    share = losses / losses.sum().clamp(min=torch.finfo(losses.dtype).tiny)
    match form:
        case "uniform":
            log_weights = torch.zeros_like(losses)
        case "release":
            # Equal weights where all losses are 0.
            log_weights = torch.where(losses.sum() > 0, share.log() + eta * losses, 0.0)
        case "eq17" | "algorithm1":
            assert carried is not None
            log_weights = carried + eta * (losses if form == "eq17" else share)
    return log_weights.masked_fill(~kept, -torch.inf).log_softmax(dim=0)


def first_occurrences(prefixes: Tensor, negative_prefixes: Tensor) -> Tensor:
    """Bool (B, N, T): whether the negative's prefix differs from the target's and from those of earlier negatives.

    Prefixes are ids: ``prefixes`` (B, T) of the target, ``negative_prefixes`` (B, N, T).
    """
    ids = torch.cat([prefixes[:, None], negative_prefixes], dim=1)
    order = ids.sort(dim=1, stable=True)
    repeated = torch.zeros_like(ids, dtype=torch.bool)
    repeated[:, 1:] = order.values[:, 1:] == order.values[:, :-1]
    return ~torch.zeros_like(repeated).scatter(1, order.indices, repeated)[:, 1:]
