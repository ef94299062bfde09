"""The stage ``baselines``: what recommending without a model achieves, on the same test items.

Like a trained model, a baseline has code-level metrics, in which a hit is the target's code, and item-level
ones, in which it is the target itself. Without collisions both are the same numbers.

Shapes: I items, U distinct codes, N test users.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from apao.artifacts import Stage
from apao.codes.itemcodes import IntArray
from apao.evaluation.metrics import rank_metrics
from apao.runs import DatasetPaths
from apao.training.batches import load_dataset
from apao.training.params import CUTOFFS


def most_popular_ranks(popularity: IntArray, code_of_item: IntArray, targets: IntArray) -> tuple[IntArray, IntArray]:
    """Ranks from 1 of each target's code and of each target, in the list of the most popular items.

    Items are listed by training count, ties by item id. The list of codes is what is left of it when the
    code of every item is written down where it comes first, so a code stands where its most popular item does.

    Args:
        popularity: training count of each item (I,).
        code_of_item: index of each item's code (I,), below U.
        targets: items (N,).

    Returns:
        Code ranks (N,), 1 to U, and item ranks (N,), 1 to I.
    """
    order = np.argsort(-popularity, kind="stable")
    first_place = np.unique(code_of_item[order], return_index=True)[1]  # of each code (U,)
    return _rank_of(np.argsort(first_place))[code_of_item[targets]], _rank_of(order)[targets]


def _rank_of(order: IntArray) -> IntArray:
    """Rank from 1 of each entry of a list that holds 0 .. len - 1."""
    ranks = np.empty_like(order)
    ranks[order] = np.arange(1, len(order) + 1)
    return ranks


def random_metrics(codes: int, items: int) -> dict[str, float]:
    """Expectation of every metric for a uniformly random ranking: of the codes, and at item level of the items."""
    return {
        f"{level}{kind}@{k}": value
        for k in CUTOFFS
        for level, count in (("", codes), ("item_", items))
        for kind, value in _random(k, count).items()
    }


def _random(k: int, count: int) -> dict[str, float]:
    most = min(k, count)
    return {"recall": most / count, "ndcg": float((1 / np.log2(np.arange(most) + 2)).sum()) / count}


def baselines(dataset: str) -> None:
    """Write the test metrics of ``most-popular`` and ``random``.

    Like the trained models they rank the whole catalogue; items of the history are not taken out.
    """
    paths = DatasetPaths(dataset)
    inputs = [paths.interactions, paths.codes]
    with Stage("baselines", paths.baselines.parent, inputs, {}) as stage:
        histories, codes = load_dataset(paths)
        targets = histories.items[histories.offsets[:-1] + histories.evaluation_targets("test")]
        popularity = histories.train_popularity(codes.items)
        code_rank, item_rank = most_popular_ranks(popularity, codes.code_of_item, targets)
        # The items of a code are listed one by one, each at a place of its own.
        table = pd.DataFrame({"rank": code_rank, "items_before": item_rank - 1, "group": 1})
        stage.output_json(
            paths.baselines.name,
            {
                "most-popular": {"users": len(targets), **rank_metrics(table)},
                "random": {"users": len(targets), **random_metrics(len(codes.distinct), codes.items)},
            },
        )
