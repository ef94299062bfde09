"""What objectives may know of a catalogue's codes, computed once for a training.

Shapes: T levels, V vocabulary, U distinct codes, I items, S states of the trie (prefixes, the root
first), P states that are not whole codes yet, D embedding width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from apao.codes.itemcodes import ItemCodes
from apao.codes.trie import Trie
from apao.data.histories import IntArray


@dataclass(frozen=True)
class Catalogue:
    """Facts about all codes. What a training did not declare as needed is None.

    Attributes:
        prefix_counts: number of distinct prefixes of length 1 .. T.
        legal: (P, V) bool: which tokens may follow each prefix.
        token_counts: (V,) how often each token is part of a training target.
        information_gain: (S,) bits by which the last token of each prefix narrows the item down.
        level_gains: (T,) how much nearer each level brings the items to their group's centre.
    """

    prefix_counts: tuple[int, ...]
    legal: Tensor | None = None
    token_counts: Tensor | None = None
    information_gain: Tensor | None = None
    level_gains: Tensor | None = None


def legal_continuations(trie: Trie) -> Tensor:
    """Bool (P, V): the legal continuations of every prefix that is not a whole code."""
    incomplete = trie.states - trie.prefix_counts[-1]
    return trie.legal(torch.arange(incomplete, device=trie.tokens.device))


def token_counts(codes: ItemCodes, targets: IntArray) -> Tensor:
    """(V,) occurrences of every token in the codes of the items ``targets``, one entry a training example."""
    return torch.as_tensor(np.bincount(codes.tokens[targets].reshape(-1), minlength=len(codes.vocabulary)))


def information_gain(codes: ItemCodes, trie: Trie, targets: IntArray) -> Tensor:
    """(S,) entropy of the code before a prefix's last token minus that after it, in bits; 0 for the root.

    The prior of a code is its share of the training targets, those no target has counting nothing, so
    a token gains 0 where the prefix before it leaves one code to expect. Entropies are those of the
    prior given the prefix.
    """
    count = np.bincount(codes.code_of_item[targets], minlength=len(codes.distinct)).astype(float)
    states = trie.walk(torch.as_tensor(codes.distinct_tokens, device=trie.tokens.device)).cpu().numpy()
    path = np.concatenate([np.zeros((len(states), 1), dtype=np.int64), states], axis=1)
    mass, weighted = np.zeros(trie.states), np.zeros(trie.states)
    # H = log M - (sum n log n) / M for the counts n below a prefix and their sum M.
    log_count = count * np.log2(np.maximum(count, 1))
    for level in range(path.shape[1]):
        np.add.at(mass, path[:, level], count)
        np.add.at(weighted, path[:, level], log_count)
    safe = np.maximum(mass, 1)
    entropy = np.log2(safe) - weighted / safe
    gain = np.zeros(trie.states)
    gain[path[:, 1:]] = entropy[path[:, :-1]] - entropy[path[:, 1:]]
    # Rounding leaves some 1e-16 where both entropies are the same.
    return torch.as_tensor(np.where(np.abs(gain) < 1e-9, 0.0, gain))


def level_gains(codes: ItemCodes, embeddings: NDArray[np.floating]) -> Tensor:
    """(T,) drop of the items' mean distance to their prefix group's centroid, from each depth to the next.

    At depth l the items (I, D) are grouped by their prefix of length l, all together at depth 0; a mean
    over items weighs the groups by their sizes (Chiu et al. 2026).
    """
    points = np.asarray(embeddings, dtype=np.float64)
    distances = []
    for depth in range(codes.levels + 1):
        group = np.unique(codes.codes[:, :depth], axis=0, return_inverse=True)[1].reshape(-1)
        sums = np.zeros((group.max() + 1, points.shape[1]))
        np.add.at(sums, group, points)
        centroid = sums / np.bincount(group)[:, None]
        distances.append(np.linalg.norm(points - centroid[group], axis=1).mean())
    return torch.as_tensor(-np.diff(distances))
