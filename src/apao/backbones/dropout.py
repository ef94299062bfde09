"""Dropout that is cheap on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Dropout(nn.Module):
    """``torch.nn.Dropout``, with a mask from 16 random bits per element on the CPU.

    There torch draws one Bernoulli variable per element, which costs more than most layers of a small
    model. Cutting 64-bit random integers into four is three times cheaper. The probability is exact to
    1 / 65,536, and the bits come from torch's global generator.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Zero each element with probability p and scale the others by 1 / (1 - p), in training only."""
        if not self.training or self.p == 0:
            return x
        if x.device.type != "cpu":
            return nn.functional.dropout(x, self.p)
        words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        bits = words.view(torch.int16)[: x.numel()].view(x.shape)
        # p < 1 must not round up to 1: the threshold would overflow 16 bits and keep every element.
        dropped = min(round(self.p * 2**16), 2**16 - 1)
        keep = (bits >= dropped - 2**15).to(x.dtype)
        return x * keep.mul_(1 / (1 - self.p))
