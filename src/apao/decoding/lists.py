"""Lists of items per user, from the codes that beam search found.

Shapes: B users, K beams, T levels, I items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from apao.codes.itemcodes import ItemCodes
from apao.codes.trie import Trie
from apao.data.histories import IntArray
from apao.decoding.beam import Beams


@dataclass(frozen=True)
class ItemList:
    """One user's items, best first.

    Attributes:
        items: (n,) item numbers. Items with the same code follow one another, in the order of their numbers.
        logp: (n,) log-probability of each item's code: the sum over the decoded tokens.
    """

    items: IntArray
    logp: np.ndarray[tuple[int], np.dtype[np.float64]]


class Lister:
    """Turns beams into lists of items, by a table of the items of each code."""

    def __init__(self, codes: ItemCodes, trie: Trie) -> None:
        self.trie = trie
        device = trie.tokens.device
        leaves = trie.walk(torch.as_tensor(codes.distinct_tokens, device=device))[:, -1]
        self._code_of_leaf = torch.full((trie.states,), -1, device=device)
        self._code_of_leaf[leaves] = torch.arange(len(leaves), device=device)
        order = np.argsort(codes.code_of_item, kind="stable")
        self._items = np.split(order, np.cumsum(codes.items_per_code)[:-1])

    def lists(self, beams: Beams, tokens: int, k: int, without: Sequence[Sequence[int]]) -> list[ItemList]:
        """The first ``k`` items of each user's beams that are not in ``without``, or fewer if the beams have fewer.

        Args:
            beams: of B users.
            tokens: number of decoded tokens per code; the beams' scores are means over these.
            k: maximum length of a list.
            without: B lists of item numbers to leave out.
        """
        codes = self._code_of_leaf[self.trie.walk(beams.tokens)[..., -1]].cpu().numpy()
        logp = (beams.scores.double() * tokens).cpu().numpy()
        return [self._list(*row, k) for row in zip(codes, logp, without, strict=True)]

    def _list(self, codes: IntArray, logp: np.ndarray, without: Sequence[int], k: int) -> ItemList:
        groups = [self._items[code] for code in codes]
        items = np.concatenate(groups)
        kept = ~np.isin(items, np.asarray(without, dtype=np.int64))
        values = np.repeat(logp, [len(group) for group in groups])
        return ItemList(items[kept][:k], values[kept][:k])
