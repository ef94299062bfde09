"""Recall and NDCG against scikit-learn's metrics of classifiers, on random scores."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import ndcg_score, top_k_accuracy_score

from apao.evaluation.metrics import CUTOFFS, user_metrics

USERS, ITEMS = 200, 60


@pytest.fixture(scope="module")
def scores():
    """Scores (users, items) without ties, and the targets (users,)."""
    rng = np.random.default_rng(0)
    return rng.permuted(np.tile(np.arange(ITEMS, dtype=float), (USERS, 1)), axis=1), rng.integers(0, ITEMS, USERS)


@pytest.mark.parametrize("k", CUTOFFS)
def test_metrics_are_those_of_sklearn(scores, k):
    values, targets = scores
    target_scores = np.take_along_axis(values, targets[:, None], axis=1)
    ranks = 1 + (values > target_scores).sum(axis=1)
    listed = np.where(ranks <= max(CUTOFFS), ranks, 0)  # a beam ranks no more
    assert (listed == 0).sum() > 20
    ours = user_metrics(pd.DataFrame({"rank": listed, "items_before": np.maximum(listed - 1, 0), "group": 1}))
    recall = top_k_accuracy_score(targets, values, k=k, labels=range(ITEMS))
    ndcg = ndcg_score(np.eye(ITEMS)[targets], values, k=k)
    for level in ("", "item_"):
        assert ours[f"{level}recall@{k}"].mean() == pytest.approx(recall, abs=1e-12)
        assert ours[f"{level}ndcg@{k}"].mean() == pytest.approx(ndcg, abs=1e-12)
