"""Lists of items per user, from ranked codes.

Shapes: B users, K ranked codes, U distinct codes, I items, N rows of all lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from apao.codes.itemcodes import ItemCodes
from apao.codes.trie import Trie
from apao.data.histories import FloatArray, IntArray
from apao.decoding.beam import Beams


@dataclass(frozen=True, eq=False)
class ItemLists:
    """Lists of several users, one after another, each best first.

    Attributes:
        users: (N,) user of each row: 0 .. B - 1, ascending.
        ranks: (N,) place in the list, from 1.
        items: (N,) item numbers. Items with the same code follow one another, in the order of their numbers.
        logp: (N,) log-probability of each item's code: the sum over the decoded tokens.
    """

    users: IntArray
    ranks: IntArray
    items: IntArray
    logp: FloatArray

    def renumbered(self, users: IntArray, chosen: NDArray[np.bool_] | None = None) -> ItemLists:
        """The lists of the ``chosen`` (B,) users, by default all, renumbered: user b becomes ``users[b]``."""
        rows = slice(None) if chosen is None else chosen[self.users]
        return ItemLists(users[self.users[rows]], self.ranks[rows], self.items[rows], self.logp[rows])

    @staticmethod
    def merged(parts: Sequence[ItemLists]) -> ItemLists:
        """Lists of several batches, in the order of their users."""
        users, ranks, items, logp = (
            np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(ItemLists)
        )
        order = np.lexsort((ranks, users))
        return ItemLists(users[order], ranks[order], items[order], logp[order])


def log_probabilities(scores: Tensor, length: int) -> FloatArray:
    """Log-probabilities of whole codes from ``scores``, means over their ``length`` tokens."""
    return (scores.double() * length).cpu().numpy()


class Lister:
    """Turns beams into lists of items, by a table of the items of each code."""

    def __init__(self, codes: ItemCodes, trie: Trie) -> None:
        self.trie, self._items = trie, codes.items
        leaves = trie.prefixes[:, -1]
        self._code_of_leaf = torch.full((trie.states,), -1, device=trie.device)
        self._code_of_leaf[leaves] = torch.arange(len(leaves), device=trie.device)
        self._by_code = np.argsort(codes.code_of_item, kind="stable")
        self._counts = codes.items_per_code
        self._first = np.cumsum(self._counts) - self._counts

    def ranked(self, beams: Beams, length: int) -> tuple[IntArray, FloatArray]:
        """Index of each beam's distinct code, and its log-probability: (B, K) each.

        ``length`` is the number of decoded tokens per code, which the beams' scores are means over.
        """
        codes = self._code_of_leaf[self.trie.walk(beams.tokens)[..., -1]].cpu().numpy()
        return codes, log_probabilities(beams.scores, length)

    def lists(
        self,
        codes: IntArray,
        logp: FloatArray,
        k: int,
        seen: tuple[IntArray, IntArray] | None = None,
        allowed: NDArray[np.bool_] | None = None,
    ) -> ItemLists:
        """The first ``k`` items of each user's codes, or fewer if the codes have fewer.

        Args:
            codes: (B, K) indices of distinct codes, best first.
            logp: (B, K) of these codes.
            k: maximum length of a list.
            seen: users (0 .. B - 1) and items to leave out of their lists.
            allowed: (I,) which items may be listed; None: all.
        """
        counts = self._counts[codes].ravel()
        ends = np.cumsum(counts)
        place = np.arange(ends[-1])
        items = self._by_code[place + np.repeat(self._first[codes.ravel()] - ends + counts, counts)]
        users = np.repeat(np.repeat(np.arange(len(codes)), codes.shape[1]), counts)
        values = np.repeat(logp.ravel(), counts)
        kept = np.ones(len(items), dtype=bool) if allowed is None else allowed[items]
        if seen is not None:
            kept &= ~np.isin(users * self._items + items, seen[0] * self._items + seen[1])
        users, items, values = users[kept], items[kept], values[kept]
        ranks = np.arange(len(users)) - np.searchsorted(users, users) + 1
        listed = ranks <= k
        return ItemLists(users[listed], ranks[listed], items[listed], values[listed])
