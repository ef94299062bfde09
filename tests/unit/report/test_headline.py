from __future__ import annotations

import pytest

from apao.errors import UserError
from apao.report.summary import headline
from apao.stages.report import report

STUDY = {"datasets": ["ml-100k"], "backbones": ["tiger"], "objectives": ["ce", "apao-pairwise"], "seeds": [42]}


def rows_of(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines() if "│" in line]


def test_headline(project):
    params = project.params(table1=STUDY)
    project.baselines("ml-100k", 0.04)
    same = {f"item_{kind}@{k}": 0.01 for kind in ("recall", "ndcg") for k in (5, 20)}
    for objective, recall, ndcg in (("ce", 0.1, 0.05), ("apao-pairwise", 0.12, 0.03)):
        strict = {**same, "item_recall@10": recall, "item_ndcg@10": ndcg}
        project.metrics(f"ml-100k/tiger/{objective}/seed42", {"recall@10": recall, "ndcg@10": ndcg}, **strict)
    project.fill("table1", params)
    report("table1", params)
    text = headline(params)
    assert rows_of(text) == [
        ["-", "most-popular", "0.0400", "1.00", "0.0400", "1.00"],
        ["tiger", "ce", "0.1000", "2.50", "0.0500", "1.25"],
        ["", "apao-pairwise", "0.1200", "3.00", "0.0300", "0.75"],
    ]
    assert "ml-100k, seed 42" in text and "strict" not in text


def test_codes_are_compared_with_codes_and_items_with_items(project):
    """Ratios are within one level: 0.5 is 1.25 times the baseline's code recall, not ten times its item recall."""
    params = project.params(table1={**STUDY, "objectives": ["ce"]})
    project.baselines("ml-100k", 0.4, strict=0.05)
    project.metrics("ml-100k/tiger/ce/seed42", {"recall@10": 0.5, "ndcg@10": 0.3}, **{"item_recall@10": 0.01})
    project.fill("table1", params)
    report("table1", params)
    text = headline(params)
    assert rows_of(text) == [
        ["-", "most-popular", "0.4000", "1.00", "0.4000", "1.00"],
        ["tiger", "ce", "0.5000", "1.25", "0.3000", "0.75"],
        ["-", "most-popular", "0.0500", "1.00", "0.0500", "1.00"],
        ["tiger", "ce", "0.0100", "0.20", "0.2700", "5.40"],
    ]
    assert "seed 42, strict: a hit is the target itself" in " ".join(text.split())


def test_a_table_of_other_runs_is_refused(project):
    params = project.params(table1=STUDY)
    project.fill("table1", params)
    report("table1", params)
    other = project.params(table1={**STUDY, "backbones": ["llama"]})
    with pytest.raises(UserError, match=r"results/tables/table1\.csv: has no row .*llama.*snakemake"):
        headline(other)


def test_no_table_yet(project):
    with pytest.raises(UserError, match=r"results/tables/table1\.csv: not found"):
        headline(project.params(table1=STUDY))
