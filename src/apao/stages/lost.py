"""Test users whose target is in the exact top 20 and is not found by beam search.

Shapes: B users of a batch, T levels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from apao.data.histories import IntArray
from apao.decoding.exact import code_logp
from apao.evaluation.metrics import code_ranks, exact_ranks
from apao.stages.exact import TOP
from apao.stages.trained import Decoded, TrainedRun


@dataclass(frozen=True)
class Survey:
    """How many targets of the test users beam search finds and loses.

    Attributes:
        users: their number.
        found: for how many the target is among the first ``TOP`` codes of the search.
        lost: (n, 2) user and exact rank of each target that is not found although its exact rank is within ``TOP``,
            the best rank first.
    """

    users: int
    found: int
    lost: IntArray


def survey(trained: TrainedRun) -> Survey:
    """Search for every test user; score the whole catalogue for the few whose target the search may have lost."""
    found, lost = 0, [np.empty((0, 2), dtype=np.int64)]
    for decoded in trained.decode("test"):
        ranks = code_ranks(decoded.beams, decoded.targets)
        found += int(((ranks > 0) & (ranks <= TOP)).sum())
        suspects = decoded.users[((ranks == 0) & _better_than_the_last(trained, decoded)).cpu().numpy()]
        lost += list(_within_top(trained, suspects))
    rows = np.concatenate(lost)
    return Survey(trained.users, found, rows[np.lexsort(rows.T)])


def _better_than_the_last(trained: TrainedRun, decoded: Decoded) -> Tensor:
    """Bool (B,): the target scores higher than the last of the beam's first ``TOP`` codes, if it has so many.

    This holds for every target in the exact top, and costs little to compute.
    """
    eos, softmax = trained.params.decodes_eos, trained.params.objective.softmax
    targets = decoded.targets[:, None]
    scores = code_logp(trained.backbone, decoded.context, trained.trie, targets, eos, softmax)[:, 0].mean(dim=-1)
    # The same sums in another order differ by rounding.
    return (scores[:, None] > decoded.beams.scores[:, TOP - 1 : TOP] - 1e-5).all(dim=1)


def _within_top(trained: TrainedRun, users: IntArray) -> Iterator[IntArray]:
    """Rows (n, 2) of user and exact rank, of those users whose target is within the exact top."""
    if not len(users):
        return
    batch = trained.examples.batch(users, trained.histories.evaluation_targets("test")[users])
    with torch.no_grad():
        scores = trained.scores(trained.backbone.encode(batch.history))
    targets = trained.codes.code_of_item[trained.histories.target_items("test", users)]
    ranks = exact_ranks(scores, torch.as_tensor(targets, device=trained.device)).cpu().numpy()
    yield np.column_stack([users, ranks])[ranks <= TOP]
