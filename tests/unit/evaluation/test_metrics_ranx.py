"""Recall, NDCG and the reciprocal rank of docs/extending.md against ranx, on random lists.

ranx and its compiler are larger than all the rest that the tests need, so it is not locked: pip install ranx==0.3.21.
"""

import numpy as np
import pandas as pd
import pytest

from apao.evaluation import metrics
from apao.evaluation.metrics import CUTOFFS, METRICS, Metric, user_metrics

ranx = pytest.importorskip("ranx", reason="ranx is not installed (pip install ranx==0.3.21)")

USERS, ITEMS, LISTED = 200, 60, 20
RECIPROCAL_RANK = Metric("MRR", "M", lambda places: 1 / places)


def test_metrics_are_those_of_ranx(monkeypatch):
    monkeypatch.setattr(metrics, "METRICS", {**METRICS, "mrr": RECIPROCAL_RANK})
    rng = np.random.default_rng(0)
    lists = np.array([rng.permutation(ITEMS)[:LISTED] for _ in range(USERS)])
    targets = rng.integers(0, ITEMS, USERS)
    hit = lists == targets[:, None]
    ranks = np.where(hit.any(axis=1), hit.argmax(axis=1) + 1, 0)
    assert 20 < (ranks == 0).sum() < USERS - 20
    ours = user_metrics(pd.DataFrame({"rank": ranks, "items_before": np.maximum(ranks - 1, 0), "group": 1}))

    judged = ranx.Qrels({f"u{user}": {f"i{item}": 1} for user, item in enumerate(targets)})
    run = ranx.Run(
        {
            f"u{user}": {f"i{item}": float(LISTED - place) for place, item in enumerate(listed)}
            for user, listed in enumerate(lists)
        }
    )
    names = [f"{kind}@{k}" for kind in ("recall", "ndcg", "mrr") for k in CUTOFFS]
    theirs = ranx.evaluate(judged, run, names, return_mean=False)
    for name in names:
        # ranx orders users by name.
        by_user = dict(zip(sorted(f"u{user}" for user in range(USERS)), theirs[name], strict=True))
        expected = [by_user[f"u{user}"] for user in range(USERS)]
        np.testing.assert_allclose(ours[name], expected, atol=1e-12)
        np.testing.assert_allclose(ours[f"item_{name}"], expected, atol=1e-12)
