from __future__ import annotations

import pytest

from apao.errors import UserError
from apao.report.stage import report
from apao.report.summary import headline

STUDY = {"datasets": ["ml-100k"], "backbones": ["tiger"], "objectives": ["ce", "apao-pairwise"], "seeds": [42]}


def test_headline(project):
    params = project.params(table1=STUDY)
    project.baselines("ml-100k", 0.04)
    project.metrics("ml-100k/tiger/ce/seed42", {"recall@10": 0.1, "ndcg@10": 0.05})
    project.metrics("ml-100k/tiger/apao-pairwise/seed42", {"recall@10": 0.12, "ndcg@10": 0.03})
    project.fill("table1", params)
    report("table1", params)
    text = headline(params)
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines() if "│" in line]
    assert rows == [
        ["-", "most-popular", "0.0400", "1.00", "0.0400", "1.00"],
        ["tiger", "ce", "0.1000", "2.50", "0.0500", "1.25"],
        ["", "apao-pairwise", "0.1200", "3.00", "0.0300", "0.75"],
    ]
    assert "ml-100k, seed 42" in text


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
