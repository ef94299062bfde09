"""Recall, NDCG and prefix recall, on codes as the paper counts them and on items.

Shapes: B users, K beams, T levels.

The paper counts a hit when the CODE matches, so items that share a code are all hit at once. The
strict metrics (``item_*``) let the items of one code share its place in expectation: with ``before``
items ranked ahead and ``group`` items on the code, the target's place is before + 1 .. before + group
with equal probability.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from apao.codes.itemcodes import ItemCodes
from apao.codes.trie import Trie
from apao.data.histories import IntArray
from apao.decoding.beam import Beams

CUTOFFS = (5, 10, 20)
"""k of Recall@k and NDCG@k."""
PREFIX_CUTOFF = 20


def code_ranks(beams: Beams, targets: Tensor) -> Tensor:
    """Rank from 1 of each target's code (B, T) in its user's beams, 0 where it is not among them: (B,)."""
    hit = (beams.tokens == targets[:, None]).all(dim=-1)
    return torch.where(hit.any(dim=1), hit.int().argmax(dim=1) + 1, 0)


def items_per_state(codes: ItemCodes, trie: Trie) -> Tensor:
    """Number of items whose code ends in each state of the trie (states,); 0 for shorter prefixes."""
    device = trie.tokens.device
    leaves = trie.walk(torch.as_tensor(codes.distinct_tokens, device=device))[:, -1]
    counts = torch.zeros(trie.states, dtype=torch.long, device=device)
    return counts.scatter(0, leaves, torch.as_tensor(codes.items_per_code, device=device))


def items_before(beams: Beams, ranks: Tensor, trie: Trie, items: Tensor) -> Tensor:
    """Number of items on the codes ranked ahead of the target (B,); 0 where the rank is 0.

    ``items`` are the counts of ``items_per_state``.
    """
    listed = items[trie.walk(beams.tokens)[..., -1]]
    ahead = listed.cumsum(dim=1) - listed
    return torch.where(ranks > 0, ahead.gather(1, (ranks - 1).clamp(min=0)[:, None])[:, 0], 0)


def prefixes_kept(states: Sequence[Tensor], target_states: Tensor, beams: int = PREFIX_CUTOFF) -> Tensor:
    """Bool (B, T): the target's prefix of each length is among the best ``beams`` after that step."""
    return torch.stack(
        [(step[:, :beams] == target_states[:, level, None]).any(dim=1) for level, step in enumerate(states)],
        dim=1,
    )


def user_metrics(ranks: pd.DataFrame) -> dict[str, NDArray[np.float64]]:
    """Recall and NDCG of each user at every cutoff, from columns rank, items_before and group.

    One relevant item a user, so NDCG is 1 / log2(rank + 1). Item-level values are expectations.
    """
    rank = ranks["rank"].to_numpy(dtype=np.int64)
    before = ranks["items_before"].to_numpy(dtype=np.int64)
    group = ranks["group"].to_numpy(dtype=np.int64)
    found = rank > 0
    gain = np.where(found, 1 / np.log2(np.maximum(rank, 1) + 1), 0.0)
    metrics = {}
    for k in CUTOFFS:
        metrics[f"recall@{k}"] = (found & (rank <= k)).astype(np.float64)
        metrics[f"ndcg@{k}"] = np.where(rank <= k, gain, 0.0)
        metrics[f"item_recall@{k}"] = _expected(before, group, found, k, np.ones(k))
        metrics[f"item_ndcg@{k}"] = _expected(before, group, found, k, 1 / np.log2(np.arange(k) + 2))
    return metrics


def rank_metrics(ranks: pd.DataFrame, listed: int | None = None) -> dict[str, float | None]:
    """Means over users of ``user_metrics``.

    Args:
        ranks: one row per user.
        listed: number of codes that were ranked per user, where it is not all of them. Metrics at a larger
            cutoff are None then: nothing beyond was ranked, and their value would be that at ``listed``.
    """
    return {
        name: float(values.mean()) if listed is None or _cutoff(name) <= listed else None
        for name, values in user_metrics(ranks).items()
    }


def _cutoff(metric: str) -> int:
    """20 of ``item_recall@20``."""
    return int(metric.partition("@")[2])


def _expected(
    before: IntArray, group: IntArray, found: NDArray[np.bool_], cutoff: int, gains: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Mean gain over the places before + 1 .. before + group, those beyond the cutoff gaining nothing."""
    summed = np.r_[0.0, np.cumsum(gains)]
    low, high = np.minimum(before, cutoff), np.minimum(before + group, cutoff)
    return np.where(found, (summed[high] - summed[low]) / np.maximum(group, 1), 0.0)
