"""The stage ``baselines``: the untrained baselines on the test items."""

from __future__ import annotations

import pandas as pd

from apao.evaluation.baselines import most_popular_ranks, random_metrics
from apao.evaluation.metrics import rank_metrics
from apao.stages.dataset import load_dataset
from apao.stages.record import Stage
from apao.study.paths import DatasetPaths


def baselines(dataset: str) -> None:
    """Write the test metrics of ``most-popular`` and ``random``.

    Like the trained models they rank the whole catalogue, including the items of the history.
    """
    paths = DatasetPaths(dataset)
    inputs = [paths.interactions, paths.codes]
    with Stage("baselines", paths.baselines.parent, inputs, {}) as stage:
        histories, codes = load_dataset(paths)
        targets = histories.target_items("test", histories.evaluated("test"))
        popularity = histories.train_popularity(codes.items)
        code_rank, item_rank = most_popular_ranks(popularity, codes.code_of_item, targets)
        # Items with the same code are listed separately, each at its own rank.
        table = pd.DataFrame({"rank": code_rank, "items_before": item_rank - 1, "group": 1})
        stage.output_json(
            paths.baselines.name,
            {
                "most-popular": {"users": len(targets), **rank_metrics(table)},
                "random": {"users": len(targets), **random_metrics(len(codes.distinct), codes.items)},
            },
        )
