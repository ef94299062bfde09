"""Many examples in one sequence, for causal backbones.

Shapes: R rows, L tokens, E examples per row, T levels, N negatives, B = present examples of all rows.

In a causal model the state before an item depends only on earlier items, so one pass over a user's sequence
predicts every item of it. The first ``max_history`` + 1 items of a user share a row, and each later item, whose
history is cut, has its own row. So every history begins where its row does, and this gives exactly the examples of
``Examples.batch``, also to a model whose positions count from there.

Only the sampling differs: whole rows are drawn, so examples of one user are in the same batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from apao.codes.vocabulary import PAD
from apao.data.histories import Histories, IntArray
from apao.training.batches import EffectiveBatch, Examples, on_device

PADDED_ROWS = 32
"""The number of rows is padded to a multiple of this where shapes shall repeat."""


@dataclass(frozen=True, eq=False)
class PackedBatch:
    """Rows of tokens and the examples in them.

    Attributes:
        tokens: (R, L) sequences, padded with 0 on the right; there may be further rows of padding.
        starts: (R, E) index of the token whose state predicts the first token of the example's target; 0 for absent
            examples.
        row: (B,) row of each present example.
        slot: (B,) its index among the row's examples.
        targets: (B, T) tokens of their codes.
        prefixes: (B, T) trie states of their prefixes.
        negatives: (R, E, N, T) tokens of sampled codes, or None.
        negative_prefixes: (R, E, N, T) trie states of their prefixes, or None.
    """

    tokens: Tensor
    starts: Tensor
    row: Tensor
    slot: Tensor
    targets: Tensor
    prefixes: Tensor
    negatives: Tensor | None
    negative_prefixes: Tensor | None

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True, eq=False)
class Rows:
    """Sequences to read.

    Attributes:
        first: index of the first item in ``histories.items``.
        length: number of items.
        examples: number of targets, which are the last items of the row.
    """

    first: IntArray
    length: IntArray
    examples: IntArray

    def __getitem__(self, chosen: IntArray) -> Rows:
        return Rows(self.first[chosen], self.length[chosen], self.examples[chosen])


def plan_rows(histories: Histories, max_history: int) -> Rows:
    """The rows that contain every training example once."""
    ends = histories.train_end(np.arange(histories.users))
    shared = np.clip(ends, 1, max_history + 1)
    users, positions = histories.training_examples()
    cut = positions > max_history
    first = np.concatenate([histories.offsets[:-1], histories.offsets[users[cut]] + positions[cut] - max_history])
    length = np.concatenate([shared, np.full(cut.sum(), max_history + 1)])
    examples = np.concatenate([shared - 1, np.ones(cut.sum(), dtype=np.int64)])
    rows = Rows(first, length, examples)
    return rows[np.flatnonzero(examples)]


class PackedSampler:
    """Effective batches of whole rows with at least ``batch_size`` examples."""

    def __init__(
        self, examples: Examples, histories: Histories, negatives: int, budget: int, repeating: bool = False
    ) -> None:
        """With ``repeating``, and without negatives, tokens are padded so that their shapes repeat."""
        self.source, self.negatives, self.budget = examples, negatives, budget
        self.repeating = repeating and not negatives
        self.rows = plan_rows(histories, examples.max_history)
        self.examples = int(self.rows.examples.sum())

    def epoch(self, wanted: int, batch_size: int, generator: torch.Generator) -> Iterator[EffectiveBatch[PackedBatch]]:
        """Rows in a random order until ``wanted`` examples are reached."""
        order = torch.randperm(len(self.rows.first), generator=generator).numpy()
        counts = self.rows.examples[order].cumsum()
        begin = done = 0
        while begin < len(order) and done < wanted:
            end = min(int(np.searchsorted(counts, min(done + batch_size, wanted))) + 1, len(order))
            reached = int(counts[end - 1])
            yield EffectiveBatch(reached - done, self._micro_batches(self.rows[order[begin:end]], generator))
            begin, done = end, reached

    def _micro_batches(self, rows: Rows, generator: torch.Generator) -> Iterator[PackedBatch]:
        order = np.argsort(rows.length + rows.examples * self.negatives, kind="stable")
        while len(order):
            # Tokens of the last 1, 2, .. rows, all padded to the longest and to the one with most examples.
            longest, most = (np.maximum.accumulate(x[order][::-1]) for x in (rows.length, rows.examples))
            tokens = (longest + most * self.negatives) * self.source.levels * np.arange(1, len(order) + 1)
            taken = max(1, int(np.searchsorted(tokens, self.budget, side="right")))
            yield self.batch(rows[order[-taken:]], generator)
            order = order[:-taken]

    def batch(self, rows: Rows, generator: torch.Generator) -> PackedBatch:
        """The tokens and examples of the given rows."""
        source, device = self.source, self.source.device
        first, length, examples = (on_device(x, device) for x in (rows.first, rows.length, rows.examples))
        column = torch.arange(int(rows.length.max()), device=device)
        within = column < length[:, None]
        tokens = source.tokens_of(torch.where(within, first[:, None] + column, -1)).flatten(1)
        if self.repeating:
            longest = (source.max_history + 1) * source.levels
            more = (0, longest - tokens.shape[1], 0, -len(tokens) % PADDED_ROWS)
            tokens = nn.functional.pad(tokens, more, value=PAD)
        slots = torch.arange(int(rows.examples.max()), device=device)
        # Targets are the last items of a row; each is predicted by the state after the item before it.
        item = (length - examples)[:, None] + slots
        # Computed on the host, to avoid a synchronisation with the device.
        taken = np.arange(len(slots)) < rows.examples[:, None]
        row, slot = (on_device(index, device) for index in taken.nonzero())
        negatives = negative_prefixes = None
        if self.negatives:
            drawn = source.sample_negatives(taken.size, self.negatives, generator)
            negatives, negative_prefixes = source.codes_of(drawn.unflatten(0, taken.shape))
        target = first[row] + item[row, slot]
        return PackedBatch(
            tokens=tokens,
            starts=torch.where(on_device(taken, device), item * source.levels - 1, 0),
            row=row,
            slot=slot,
            targets=source.tokens_of(target),
            prefixes=source.prefixes_of(target),
            negatives=negatives,
            negative_prefixes=negative_prefixes,
        )
