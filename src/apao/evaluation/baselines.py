"""The stage ``baselines``: what recommending without a model achieves, on the same test items."""

from __future__ import annotations

import numpy as np
import pandas as pd

from apao.artifacts import Stage, read_table
from apao.codes.itemcodes import IntArray
from apao.data.histories import Histories
from apao.evaluation.metrics import rank_metrics
from apao.runs import DatasetPaths
from apao.training.params import CUTOFFS


def most_popular_ranks(popularity: IntArray, targets: IntArray) -> IntArray:
    """Rank from 1 of each target when items are sorted by training count, ties by item id."""
    order = np.argsort(-popularity, kind="stable")
    rank_of = np.empty_like(order)
    rank_of[order] = np.arange(1, len(order) + 1)
    return rank_of[targets]


def random_metrics(items: int) -> dict[str, float]:
    """Expectation of every metric for a uniformly random ranking of the items."""
    metrics: dict[str, float] = {}
    for k in CUTOFFS:
        most = min(k, items)
        recall, ndcg = most / items, float((1 / np.log2(np.arange(most) + 2)).sum()) / items
        metrics |= {f"recall@{k}": recall, f"ndcg@{k}": ndcg, f"item_recall@{k}": recall, f"item_ndcg@{k}": ndcg}
    return metrics


def baselines(dataset: str) -> None:
    """Write the test metrics of ``most-popular`` and ``random``.

    Like the trained models they rank the whole catalogue; items of the history are not taken out.
    """
    paths = DatasetPaths(dataset)
    inputs = [paths.interactions, paths.items]
    with Stage("baselines", paths.baselines.parent, inputs, {}) as stage:
        histories = Histories.load(paths.interactions)
        items = len(read_table(paths.items, ["item"]))
        targets = histories.items[histories.offsets[:-1] + histories.evaluation_targets("test")]
        ranks = most_popular_ranks(histories.train_popularity(items), targets)
        table = pd.DataFrame({"rank": ranks, "items_before": ranks - 1, "group": 1})
        stage.output_json(
            paths.baselines.name,
            {
                "most-popular": {"users": len(targets), **rank_metrics(table)},
                "random": {"users": len(targets), **random_metrics(items)},
            },
        )
