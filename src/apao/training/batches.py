"""Training examples as batches of tokens, gathered from tables that stay on the device.

Shapes: B batch, L history tokens, T levels, N negatives, U distinct codes, I items.

Examples are drawn in effective batches (one per optimizer step). Each is sorted by history length and split
into micro-batches of a bounded number of tokens, so there is little padding and memory does not depend on
the batch size. On a GPU their shapes repeat (``repeating``), so that a recorded pass can be replayed
(``training.replays``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from apao.codes.itemcodes import ItemCodes
from apao.codes.trie import Trie
from apao.data.histories import Histories, IntArray

AnyBatch = TypeVar("AnyBatch")

REPEATED_ROWS = 256
"""Most examples of a micro-batch whose shape repeats: a quarter of the paper's batch, so that short histories, which
come in parts of their own, are not padded to the longest."""
REPEATED_STEP = 4
"""Their histories are padded to a multiple of this number of items."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Examples as tokens. The attributes about negatives are None unless negatives were requested.

    Attributes:
        history: (B, L) tokens, oldest first, padded with 0 on the right.
        targets: (B, T) tokens of the target's code.
        prefixes: (B, T) trie states of its prefixes.
        negatives: (B, N, T) tokens of the sampled codes.
        negative_prefixes: (B, N, T) trie states of their prefixes.
    """

    history: Tensor
    targets: Tensor
    prefixes: Tensor
    negatives: Tensor | None
    negative_prefixes: Tensor | None

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True, eq=False)
class EffectiveBatch(Generic[AnyBatch]):
    """The examples of one optimizer step; ``parts`` are its micro-batches."""

    examples: int
    parts: Iterator[AnyBatch]


def on_device(values: NDArray[Any] | Tensor, device: torch.device) -> Tensor:
    """``values`` as a tensor on ``device``. To a GPU they are sent from pinned memory, for which no step waits."""
    tensor = torch.as_tensor(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


class Examples:
    """The interactions and codes of a dataset on a device, from which batches are gathered."""

    def __init__(self, histories: Histories, codes: ItemCodes, max_history: int, trie: Trie) -> None:
        """``trie`` is that of the codes, on the device where the tables shall be."""
        device = trie.device
        self.max_history, self.device, self._prefixes = max_history, device, trie.prefixes
        self.levels = codes.levels
        self._tokens = torch.as_tensor(codes.padded_tokens, device=device)
        self._codes = torch.as_tensor(codes.distinct_tokens, device=device)
        self._code_of_item = torch.as_tensor(codes.code_of_item, device=device)
        self._items = torch.as_tensor(histories.items.copy(), device=device)
        self._offsets = histories.offsets

    def tokens_of(self, interactions: Tensor) -> Tensor:
        """Code tokens (..., T) of the items at these indices of ``histories.items``; -1 gives padding."""
        item = self._items[interactions.clamp(min=0)]
        return self._tokens[torch.where(interactions >= 0, item, -1)]

    def codes_of(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens and prefixes (trie states), each (..., T), of distinct codes by index."""
        indices = on_device(indices, self.device)
        return self._codes[indices], self._prefixes[indices]

    def prefixes_of(self, interactions: Tensor) -> Tensor:
        """Prefixes (..., T), as trie states, of the items at these indices of ``histories.items``."""
        return self._prefixes[self._code_of_item[self._items[interactions]]]

    def sample_negatives(self, examples: int, count: int, generator: torch.Generator) -> Tensor:
        """(examples, count) indices of distinct codes, uniform with replacement."""
        return torch.randint(len(self._codes), (examples, count), generator=generator)

    def batch(
        self, users: IntArray, positions: IntArray, negatives: Tensor | None = None, items: int | None = None
    ) -> Batch:
        """The examples whose target is the item at ``positions`` (B,) of ``users`` (B,), as one batch.

        ``negatives`` (B, N) are indices of distinct codes; ``items`` is the length that histories are padded to, by
        default that of the longest.
        """
        lengths = np.minimum(positions, self.max_history)
        target = on_device(self._offsets[users] + positions, self.device)
        length = on_device(lengths, self.device)
        column = torch.arange(items or int(lengths.max()), device=self.device)
        places = torch.where(column < length[:, None], (target - length)[:, None] + column, -1)
        tokens, prefixes = (None, None) if negatives is None else self.codes_of(negatives)
        return Batch(
            history=self.tokens_of(places).flatten(1),
            targets=self.tokens_of(target),
            prefixes=self.prefixes_of(target),
            negatives=tokens,
            negative_prefixes=prefixes,
        )

    def micro_batches(
        self, users: IntArray, positions: IntArray, negatives: Tensor | None, budget: int, repeating: bool = False
    ) -> Iterator[Batch]:
        """The given examples, sorted by history length, in batches of at most ``budget`` padded tokens.

        With ``repeating`` there are few shapes: numbers of examples are powers of two up to ``REPEATED_ROWS`` (and
        what is left at the end), and lengths are multiples of ``REPEATED_STEP`` items.
        """
        lengths = np.minimum(positions, self.max_history)
        order = np.argsort(lengths, kind="stable")
        candidate_tokens = self.levels * (1 + (0 if negatives is None else negatives.shape[1]))
        end = len(order)
        # From the longest down: the last example of a slice determines the padding of the slice.
        while end > 0:
            items = int(lengths[order[end - 1]])
            if repeating:
                items = min(-(-items // REPEATED_STEP) * REPEATED_STEP, self.max_history)
            taken = max(1, budget // (items * self.levels + candidate_tokens))
            if repeating:
                taken = min(2 ** (taken.bit_length() - 1), REPEATED_ROWS)
            begin = max(0, end - taken)
            rows = order[begin:end]
            chosen = None if negatives is None else negatives[torch.as_tensor(rows)]
            yield self.batch(users[rows], positions[rows], chosen, items)
            end = begin


class ExampleSampler:
    """Effective batches of independently drawn examples, in micro-batches as ``Examples.micro_batches`` makes them."""

    def __init__(
        self, examples: Examples, histories: Histories, negatives: int, budget: int, repeating: bool = False
    ) -> None:
        self.source, self.negatives, self.budget, self.repeating = examples, negatives, budget, repeating
        self.users, self.positions = histories.training_examples()
        self.examples = len(self.users)

    def epoch(self, wanted: int, batch_size: int, generator: torch.Generator) -> Iterator[EffectiveBatch[Batch]]:
        """Batches of ``batch_size`` from a new random order of the examples, cut to the first ``wanted``."""
        order = torch.randperm(self.examples, generator=generator).numpy()[:wanted]
        for begin in range(0, len(order), batch_size):
            chosen = order[begin : begin + batch_size]
            parts = self.parts(self.users[chosen], self.positions[chosen], generator)
            yield EffectiveBatch(len(chosen), parts)

    def parts(self, users: IntArray, positions: IntArray, generator: torch.Generator) -> Iterator[Batch]:
        """Micro-batches of given examples, with negatives drawn by ``generator``."""
        negatives = None
        if self.negatives:
            negatives = self.source.sample_negatives(len(users), self.negatives, generator)
        return self.source.micro_batches(users, positions, negatives, self.budget, self.repeating)
