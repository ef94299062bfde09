"""Facts about a catalogue's codes that objectives may use.

Shapes: T levels, V vocabulary, U distinct codes, I items, S states of the trie (prefixes, the root first), D embedding
width, N training examples.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from apao.codes.itemcodes import ItemCodes
from apao.codes.trie import Trie
from apao.data.histories import IntArray


@dataclass(frozen=True, eq=False)
class CodeStatistics:
    """Facts about all codes, each computed on first access, on the device of the trie.

    Attributes:
        codes: code table of the items.
        trie: prefix tree of these codes.
        targets: (N,) target item of each training example.
        embeddings: (I, D) item embeddings; None unless the objective declares ``Needs.embeddings``.
    """

    codes: ItemCodes
    trie: Trie
    targets: IntArray
    embeddings: NDArray[np.floating] | None = None

    @property
    def device(self) -> torch.device:
        """Device of the tensors."""
        return self.trie.device

    @cached_property
    def prefix_counts(self) -> Tensor:
        """(T,) number of distinct prefixes of length 1 .. T."""
        return torch.tensor(self.trie.prefix_counts, device=self.device)

    @cached_property
    def token_counts(self) -> Tensor:
        """(V,) number of occurrences of each token in the training targets."""
        tokens = self.codes.tokens[self.targets].reshape(-1)
        return torch.as_tensor(np.bincount(tokens, minlength=len(self.codes.vocabulary)), device=self.device)

    @cached_property
    def information_gain(self) -> Tensor:
        """(S,) information gain of each prefix's last token in bits; 0 for the root.

        The gain is the entropy of the code given the prefix without that token, minus the entropy given the whole
        prefix. The prior of a code is its share of the training targets; codes without targets have prior 0, so the
        gain is 0 if only one code with targets has the shorter prefix.
        """
        codes = self.codes
        count = np.bincount(codes.code_of_item[self.targets], minlength=len(codes.distinct)).astype(float)
        states = self.trie.prefixes.cpu().numpy()
        path = np.concatenate([np.zeros((len(states), 1), dtype=np.int64), states], axis=1)
        mass, weighted = np.zeros(self.trie.states), np.zeros(self.trie.states)
        # H = log M - (sum n log n) / M for the counts n below a prefix and their sum M.
        log_count = count * np.log2(np.maximum(count, 1))
        for level in range(path.shape[1]):
            np.add.at(mass, path[:, level], count)
            np.add.at(weighted, path[:, level], log_count)
        safe = np.maximum(mass, 1)
        entropy = np.log2(safe) - weighted / safe
        gain = np.zeros(self.trie.states)
        gain[path[:, 1:]] = entropy[path[:, :-1]] - entropy[path[:, 1:]]
        # Rounding leaves about 1e-16 where both entropies are equal.
        return torch.as_tensor(np.where(np.abs(gain) < 1e-9, 0.0, gain), device=self.device)

    @cached_property
    def level_gains(self) -> Tensor:
        """(T,) decrease in the items' mean distance to the centroid of their prefix group, from each depth to the next.

        At depth l the items are grouped by their prefix of length l (one group at depth 0). The mean over items
        weights the groups by size (Chiu et al. 2026).

        Raises:
            ValueError: when there are no embeddings.
        """
        if self.embeddings is None:
            raise ValueError("level_gains are computed from the items' embeddings; declare Needs(embeddings=True)")
        points = np.asarray(self.embeddings, dtype=np.float64)
        distances = []
        for depth in range(self.codes.levels + 1):
            group = np.unique(self.codes.codes[:, :depth], axis=0, return_inverse=True)[1].reshape(-1)
            sums = np.zeros((group.max() + 1, points.shape[1]))
            np.add.at(sums, group, points)
            centroid = sums / np.bincount(group)[:, None]
            distances.append(np.linalg.norm(points - centroid[group], axis=1).mean())
        return torch.as_tensor(-np.diff(distances), device=self.device)
