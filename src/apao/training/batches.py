"""Training examples as batches of tokens, from tables that stay on the device.

Shapes: B batch, L history tokens, T levels, N negatives, U distinct codes, I items.

Examples are drawn in effective batches (one optimizer step); each is sorted by history length and cut
into micro-batches of a bounded number of tokens, so little is padded and memory does not depend on
the batch size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from apao.codes.itemcodes import PAD, IntArray, ItemCodes
from apao.data.histories import Histories


@dataclass(frozen=True)
class Batch:
    """History tokens (B, L), target codes (B, T) and, where asked for, negative codes (B, N, T)."""

    history: Tensor
    targets: Tensor
    negatives: Tensor | None

    def __len__(self) -> int:
        return len(self.targets)


class Examples:
    """The interactions and codes of a dataset on a device, and batches gathered from them."""

    def __init__(self, histories: Histories, codes: ItemCodes, max_history: int, device: torch.device) -> None:
        self.max_history, self.device = max_history, device
        self.levels = codes.levels
        padding = np.full((1, codes.levels), PAD)
        self._tokens = torch.as_tensor(np.concatenate([codes.tokens, padding]), device=device)
        self._codes = torch.as_tensor(codes.distinct_tokens, device=device)
        self._items = torch.as_tensor(histories.items, device=device)
        self._offsets = histories.offsets

    def batch(self, users: IntArray, positions: IntArray, negatives: Tensor | None = None) -> Batch:
        """The examples "predict the item at ``positions`` of ``users`` from the items before it".

        ``negatives`` (B, N) are indices of distinct codes.
        """
        lengths = np.minimum(positions, self.max_history)
        last = torch.as_tensor(self._offsets[users] + positions, device=self.device)
        length = torch.as_tensor(lengths, device=self.device)
        column = torch.arange(int(lengths.max()), device=self.device)
        within = column < length[:, None]
        item = self._items[torch.where(within, (last - length)[:, None] + column, 0)]
        history = self._tokens[torch.where(within, item, -1)].flatten(1)
        return Batch(
            history=history,
            targets=self._tokens[self._items[last]],
            negatives=None if negatives is None else self._codes[negatives.to(self.device)],
        )

    def micro_batches(
        self, users: IntArray, positions: IntArray, negatives: Tensor | None, budget: int
    ) -> Iterator[Batch]:
        """The given examples, sorted by history length, at most ``budget`` padded tokens at a time."""
        lengths = np.minimum(positions, self.max_history)
        order = np.argsort(lengths, kind="stable")
        candidate_tokens = self.levels * (1 + (0 if negatives is None else negatives.shape[1]))
        end = len(order)
        # From the longest down: the first example of a cut says how long all of it is padded.
        while end > 0:
            row = int(lengths[order[end - 1]]) * self.levels + candidate_tokens
            begin = max(0, end - max(1, budget // row))
            rows = order[begin:end]
            chosen = None if negatives is None else negatives[torch.as_tensor(rows)]
            yield self.batch(users[rows], positions[rows], chosen)
            end = begin

    def sample_negatives(self, examples: int, count: int, generator: torch.Generator) -> Tensor:
        """(examples, count) indices of distinct codes, uniform with replacement."""
        return torch.randint(len(self._codes), (examples, count), generator=generator)


def epoch_order(examples: int, wanted: int | None, generator: torch.Generator) -> IntArray:
    """A random order of the examples, or of a fresh random sample of ``wanted`` of them."""
    order = torch.randperm(examples, generator=generator).numpy()
    return order[:wanted]
