"""Recall, NDCG and prefix recall, at code level as in the paper and at item level.

``METRICS`` is the only list of metrics over ranks: its entries are computed for every run and baseline and named by
tables and figures.

Shapes: B users, K beams, T levels, U distinct codes, ``...`` any.

The paper counts a hit when the code matches, so all items that share the code are hit at once. In the strict,
item-level metrics (``item_*``) the items of a code share its rank in expectation: with ``before`` items
ranked ahead and ``group`` items with the code, the target's rank is before + 1 .. before + group with
equal probability.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pydantic import AfterValidator
from torch import Tensor

from apao.data.histories import FloatArray, IntArray
from apao.decoding.beam import Beams
from apao.errors import UserError, nearest

CUTOFFS = (5, 10, 20)
"""Every metric over ranks is computed at each of these k."""
PREFIX_CUTOFF = 20
"""k of prefix recall."""
PREFIX_RECALL = f"prefix_recall@{PREFIX_CUTOFF}"
"""Share of the users whose target's prefix was kept, of every length; in metrics.json."""
PREFIX = "prefix_"
"""How the columns of ranks.parquet begin that say which prefixes of a target were kept; the length follows."""
MOVED = ("lost@", "won@")
"""How the names of the shares of ``moved`` begin; the cutoff follows."""
CODE_LEVEL, ITEM_LEVEL = "", "item_"
"""Prefixes of the names of code-level and item-level metrics."""


@dataclass(frozen=True)
class Metric:
    """A metric with one relevant item per user, by the gain of that item at each rank."""

    title: str
    """``NDCG`` of ``NDCG@10``."""
    short: str
    """Title in a narrow column: ``N`` of ``N@10``."""
    gain: Callable[[IntArray], FloatArray]
    """Gain at each rank, from 1; beyond the cutoff it is 0."""


METRICS = {
    "recall": Metric("Recall", "R", lambda places: np.ones(places.shape)),
    "ndcg": Metric("NDCG", "N", lambda places: 1 / np.log2(places + 1)),
}
"""By the name before the cutoff: ``ndcg`` of ``ndcg@10`` and ``item_ndcg@10``."""


def metric_names(cutoffs: Sequence[int] = CUTOFFS, levels: Sequence[str] = (CODE_LEVEL, ITEM_LEVEL)) -> list[str]:
    """Every metric at every cutoff, the code level first."""
    return [f"{level}{kind}@{k}" for level in levels for kind in METRICS for k in cutoffs]


def metric_title(name: str) -> str:
    """``NDCG@10`` of ``ndcg@10`` and of ``item_ndcg@10``."""
    metric, cutoff = _parts(name)
    return f"{metric.title}@{cutoff}"


def short_name(name: str) -> str:
    """``N@10`` of ``ndcg@10`` and of ``item_ndcg@10``."""
    metric, cutoff = _parts(name)
    return f"{metric.short}@{cutoff}"


def _parts(name: str) -> tuple[Metric, int]:
    kind, _, cutoff = name.removeprefix(ITEM_LEVEL).partition("@")
    return METRICS[kind], int(cutoff)


def _known(name: str) -> str:
    if name not in (known := metric_names(levels=[CODE_LEVEL])):
        raise ValueError(f"unknown metric {name!r}; {nearest(name, known)}")
    return name


MetricName = Annotated[str, AfterValidator(_known)]
"""A code-level metric with its cutoff, as params.yaml names it."""


def code_ranks(beams: Beams, targets: Tensor) -> Tensor:
    """Ranks (B,), from 1, of the targets' codes (B, T) in their users' beams; 0 where a code is not among them."""
    hit = (beams.tokens == targets[:, None]).all(dim=-1)
    return torch.where(hit.any(dim=1), hit.int().argmax(dim=1) + 1, 0)


def exact_ranks(scores: Tensor, codes: Tensor) -> Tensor:
    """Ranks (B,), from 1, of the codes (B,), given by index, among the scores (B, U) of all codes.

    Codes with equal scores share the best rank.

    Raises:
        UserError: when a score is not a number, which would rank every code first.
    """
    if scores.isnan().any():
        raise UserError("the model scores codes with nan: its weights are damaged, or its training diverged")
    return 1 + (scores > scores.gather(1, codes[:, None])).sum(dim=1)


def items_before(items: IntArray, ranks: IntArray) -> IntArray:
    """Number of items (B,) whose codes are ranked ahead of the target's; 0 where its rank (B,) is 0.

    ``items`` (B, K) are the numbers of items of the ranked codes.
    """
    ahead = np.cumsum(items, axis=1) - items
    return np.where(ranks > 0, np.take_along_axis(ahead, np.maximum(ranks - 1, 0)[:, None], axis=1)[:, 0], 0)


def prefixes_kept(states: Sequence[Tensor], prefixes: Tensor) -> Tensor:
    """Bool (B, ..., T): whether prefixes (B, ..., T) of each length, as trie states, are in the beam after that step.

    ``states`` has the beam (B, K) of each of the T steps.
    """
    beams = (step.view(len(step), *[1] * (prefixes.dim() - 2), -1) for step in states)
    return torch.stack([(prefixes[..., level, None] == beam).any(dim=-1) for level, beam in enumerate(beams)], dim=-1)


def code_metrics(rank: IntArray) -> dict[str, FloatArray]:
    """Every code-level metric at every cutoff of each user, from the rank of the code; 0: it is not ranked."""
    gains = {kind: metric.gain(np.maximum(rank, 1)) for kind, metric in METRICS.items()}
    return {
        f"{CODE_LEVEL}{kind}@{k}": np.where((rank > 0) & (rank <= k), gain, 0.0)
        for kind, gain in gains.items()
        for k in CUTOFFS
    }


def moved(beam: IntArray, exact: IntArray) -> dict[str, FloatArray]:
    """Whether each user's code is in the top k by only one of two rankings, for every cutoff.

    ``lost@k``: by exact scoring and not by beam search; ``won@k`` the reverse, because the beam has dropped codes above
    it. Ranks from 1; a ``beam`` rank of 0 is a code that is not in the beam.
    """
    tops = {k: ((beam > 0) & (beam <= k), exact <= k) for k in CUTOFFS}
    lost, won = MOVED
    found = {f"{lost}{k}": by_exact & ~by_beam for k, (by_beam, by_exact) in tops.items()}
    found |= {f"{won}{k}": by_beam & ~by_exact for k, (by_beam, by_exact) in tops.items()}
    return {name: values.astype(np.float64) for name, values in found.items()}


def user_metrics(ranks: pd.DataFrame) -> dict[str, FloatArray]:
    """Every metric at every cutoff of each user (row), from the columns rank, items_before and group.

    Item-level values are expectations.
    """
    rank = ranks["rank"].to_numpy(dtype=np.int64)
    before = ranks["items_before"].to_numpy(dtype=np.int64)
    group = ranks["group"].to_numpy(dtype=np.int64)
    expected = {
        f"{ITEM_LEVEL}{kind}@{k}": _expected(before, group, rank > 0, metric.gain(np.arange(k) + 1))
        for kind, metric in METRICS.items()
        for k in CUTOFFS
    }
    return code_metrics(rank) | expected


def rank_metrics(ranks: pd.DataFrame, listed: int | None = None) -> dict[str, float | None]:
    """Means of ``user_metrics`` over users.

    Args:
        ranks: one row per user.
        listed: number of codes that were ranked per user; None if all were. Metrics at a larger cutoff are
            None, since they would only repeat the value at ``listed``.
    """
    return {
        name: float(values.mean()) if listed is None or _parts(name)[1] <= listed else None
        for name, values in user_metrics(ranks).items()
    }


def _expected(before: IntArray, group: IntArray, found: NDArray[np.bool_], gains: FloatArray) -> FloatArray:
    """Mean gain over the ranks before + 1 .. before + group; beyond the end of ``gains`` the gain is 0."""
    summed, cutoff = np.r_[0.0, np.cumsum(gains)], len(gains)
    low, high = np.minimum(before, cutoff), np.minimum(before + group, cutoff)
    return np.where(found, (summed[high] - summed[low]) / np.maximum(group, 1), 0.0)
