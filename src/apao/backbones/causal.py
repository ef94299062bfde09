"""What causal models other than ``llama`` share: the item-ID baselines and ``hf-causal``.

Shapes as in ``base``. A subclass says how it reads sequences (``read``) and continues them (``extend``);
encoding histories follows from the two. With codes of one token there is nothing to feed for candidates: all
of them are scored by the state after the history.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace

import torch
from torch import Tensor, nn
from typing_extensions import override

from apao.backbones.base import Backbone, Context, followed_by


class CausalBackbone(Backbone):
    """A backbone whose state after a token depends on the earlier tokens of its row only."""

    @abstractmethod
    @override
    def read(self, tokens: Tensor, starts: Tensor, candidates: int) -> tuple[Tensor, Context]: ...

    @override
    def encode(self, history: Tensor, target: Tensor | None = None, candidates: Tensor | None = None) -> Context:
        tokens, places = followed_by(history, target)
        states, context = self.read(tokens, places[:, :1], 1)
        rows = torch.arange(len(history), device=history.device)[:, None]
        context = replace(context, along=states[rows, places])
        return context if candidates is None else replace(context, after=self.extend(context, candidates)[0])


def glorot_normal(module: nn.Module) -> None:
    """Redraw every matrix from a normal distribution of variance 2 / (rows + columns) (Glorot and Bengio 2010)."""
    for parameter in module.parameters():
        if parameter.dim() == 2:
            nn.init.normal_(parameter, std=(2 / sum(parameter.shape)) ** 0.5)
