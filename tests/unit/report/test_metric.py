"""A metric added to METRICS is shown everywhere under its own name."""

import numpy as np
import pandas as pd
import pytest

from apao.evaluation.baselines import random_metrics
from apao.evaluation.metrics import METRICS, Metric, rank_metrics
from apao.report.summary import headline
from apao.stages.report import report

STUDY = {"datasets": ["office"], "backbones": ["tiger"], "seeds": [1]}


@pytest.fixture(autouse=True)
def _mrr(monkeypatch):
    """Mean reciprocal rank."""
    monkeypatch.setitem(METRICS, "mrr", Metric("MRR", "M", lambda places: 1 / places))


def test_it_is_computed_at_both_levels_and_for_the_random_baseline():
    # Rank 2 with two items per code: item ranks 3 and 4.
    found = rank_metrics(pd.DataFrame({"rank": [1, 2, 0, 11], "items_before": [0, 2, 0, 20], "group": [1, 2, 1, 1]}))
    assert found["mrr@10"] == pytest.approx((1 + 1 / 2) / 4)
    assert found["mrr@20"] == pytest.approx((1 + 1 / 2 + 1 / 11) / 4)
    assert found["item_mrr@5"] == pytest.approx((1 + (1 / 3 + 1 / 4) / 2) / 4)
    assert random_metrics(4, 8)["mrr@5"] == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
    assert random_metrics(4, 8)["item_mrr@5"] == pytest.approx(sum(1 / np.arange(1, 6)) / 8)


def test_comparisons_and_the_headline_show_it(project):
    params = project.params(table1={**STUDY, "objectives": ["ce", "apao-pairwise"]})
    for objective, value in (("ce", 0.02), ("apao-pairwise", 0.03)):
        project.metrics(f"office/tiger/{objective}/seed1", {"mrr@10": value})
    project.fill("table1", params)
    report("table1", params)
    text = (project.folder / "results/tables/table1.md").read_text()
    assert text.startswith("# Table 1. Recall and NDCG and MRR of training objectives")
    assert "Code level M@10" in text and "Item level, strict M@20" in text
    frame = pd.read_csv("results/tables/table1.csv").set_index(["objective", "metric"])
    assert frame.loc[("apao-pairwise", "mrr@10"), "gain_percent"] == pytest.approx(50)
    assert frame.loc[("most-popular", "item_mrr@20"), "value"] == 0.02
    assert "MRR@10" in headline(params)


def test_other_studies_are_drawn_by_it(project):
    variants = {"full": "apao-pairwise", "none": "ce"}
    params = project.params(
        best={**STUDY, "kind": "sweep-best", "sweeps": ["beta"], "metric": "mrr@10"},
        along={**STUDY, "kind": "sweep", "sweeps": ["beta"], "metric": "mrr@5"},
        stages={**STUDY, "kind": "training-stages", "one_stage": ["ce"], "two_stage": [], "metric": "mrr@20"},
        parts={
            **{"kind": "ablation", "dataset": "office", "backbone": "tiger", "seeds": [1], "metrics": ["mrr@10"]},
            **{"modules": variants, "prefixes": variants},
        },
    )
    for name, study in params.chosen_studies.items():
        project.fill(name, params)
        report(name, params)
        readable = study.outputs(name)[3 if study.form.folder.name == "figures" else 1]
        assert "MRR@" in readable.read_text() and "NDCG" not in readable.read_text(), name
    frame = pd.read_csv("results/tables/best.csv")
    assert frame["test_mrr@10"].notna().all()
