from __future__ import annotations

import math

import pandas as pd
import pytest

from apao.report.significance import paired_p, user_metric
from apao.report.stage import report

OBJECTIVES = ["ce", "apao-pairwise"]


def two_seeds(project):
    """office/tiger: ce at 0.04 and 0.06, apao-pairwise at 0.05 and 0.06; hits of two and four users of four."""
    study = {"datasets": ["office"], "backbones": ["tiger"], "objectives": OBJECTIVES, "seeds": [1, 2]}
    params = project.params(table1=study)
    for objective, values, ranks in (("ce", (0.04, 0.06), [1, 0, 1, 0]), ("apao-pairwise", (0.05, 0.06), [1] * 4)):
        for seed, value in zip((1, 2), values, strict=True):
            run = f"office/tiger/{objective}/seed{seed}"
            # Validation is better than test by far: a mix-up would show.
            project.metrics(run, {"ndcg@10": value, "recall@10": 2 * value}, valid={"ndcg@10": 0.9})
            project.ranks(run, ranks)
    project.baselines("office", 0.02)
    return params


@pytest.fixture
def made(project):
    report("table1", two_seeds(project))
    return project.folder / "results/tables"


def row(frame, objective, metric):
    found = frame[(frame["objective"] == objective) & (frame["metric"] == metric)]
    assert len(found) == 1
    return found.iloc[0]


def test_long_form(made):
    frame = pd.read_csv(made / "table1.csv")
    ce = row(frame, "ce", "ndcg@10")
    assert ce["value"] == pytest.approx(0.05)
    assert ce["sd"] == pytest.approx(math.sqrt(2) * 0.01)  # of 0.04 and 0.06, n - 1
    assert (ce["seeds"], ce["runs"]) == ("1 2", 2)
    assert ce["paper"] == 0.0292  # Table 1 of the paper
    assert ce["difference"] == pytest.approx(0.05 - 0.0292)
    pairwise = row(frame, "apao-pairwise", "ndcg@10")
    assert pairwise["gain_percent"] == pytest.approx(10.0)  # 0.055 over 0.05
    assert math.isnan(ce["gain_percent"])
    strict = row(frame, "apao-pairwise", "item_ndcg@10")
    assert strict["value"] == pytest.approx(0.9 * 0.055)
    assert math.isnan(strict["paper"])
    assert math.isnan(strict["p"])
    popular = row(frame, "most-popular", "recall@10")
    assert (popular["backbone"], popular["value"]) == ("baseline", 0.02)


def test_long_form_has_the_papers_columns(made):
    frame = pd.read_csv(made / "table1.csv")
    assert list(frame.columns[:5]) == ["backbone", "objective", "dataset", "metric", "value"]
    assert set(frame["metric"]) >= {"recall@10", "recall@20", "ndcg@10", "ndcg@20", "item_recall@10"}


def test_wide_form(made):
    text = (made / "table1.md").read_text()
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    ce = next(line for line in lines if line[1] == "ce")
    pairwise = next(line for line in lines if line[1] == "apao-pairwise")
    gain = next(line for line in lines if line[1].startswith("gain of apao-pairwise"))
    # Code level R@10, R@20, N@10, N@20, then item level.
    assert ce[2:6] == ["0.1000 ± 0.0283", "**0.0100 ± 0.0000**", "0.0500 ± 0.0141", "**0.0100 ± 0.0000**"]
    assert pairwise[2:6:2] == ["**0.1100 ± 0.0141**", "**0.0550 ± 0.0071**"]
    assert pairwise[6] == "**0.0990 ± 0.0127**"
    assert gain[2:6] == ["+10.0", "+0.0", "+10.0", "+0.0"]
    compared = [line for line in lines if line[1] == "ce"][1]
    assert compared[8:11] == ["0.0500 ± 0.0141", "0.0292", "+0.0208"]
    assert [line[1] for line in lines if line[0] == "baseline"] == ["most-popular"]
    assert any(line[1] == "random" for line in lines)
    for said in ("Scale tiny", "dataset office", "seeds 1, 2", "4 runs", "Means over 2 seeds"):
        assert said in text
    assert "The paper has no dataset" not in text


def test_latex_holds_the_same_numbers(made):
    text = (made / "table1.tex").read_text()
    assert r"\textbf{0.0550 $\pm$ 0.0071}" in text
    assert r"0.0500 $\pm$ 0.0141 & 0.0292 & +0.0208" in text
    assert r"gain of apao-pairwise, \%" in text


def test_dataset_without_paper_numbers(project):
    params = project.params(
        table1={"datasets": ["ml-100k"], "backbones": ["llama"], "objectives": ["ce"], "seeds": [42]}
    )
    project.fill("table1", params)
    report("table1", params)
    frame = pd.read_csv("results/tables/table1.csv")
    assert frame["paper"].isna().all()
    assert frame["sd"].isna().all()
    text = (project.folder / "results/tables/table1.md").read_text()
    assert "The paper has no dataset ml-100k" in text
    assert "±" not in text
    assert "One seed" in text


def test_user_metric_by_hand():
    ranks = pd.Series([1, 3, 10, 11, 0])
    assert user_metric(ranks, "recall@10").tolist() == [1, 1, 1, 0, 0]
    assert user_metric(ranks, "ndcg@10").tolist() == pytest.approx([1, 0.5, 1 / math.log2(11), 0, 0])


def test_p_by_hand(made):
    # Differences 0, 1, 0, 1: t = sqrt(3) with 3 degrees of freedom, where p = 1/2 - 1/pi.
    frame = pd.read_csv(made / "table1.csv")
    assert row(frame, "apao-pairwise", "recall@10")["p"] == pytest.approx(0.5 - 1 / math.pi)
    assert "*" not in (made / "table1.tex").read_text().replace("table*", "")


def test_seeds_are_averaged_before_the_test_and_users_matched_by_id():
    users = [5, 6, 7]
    ours = [pd.Series([1, 1, 2], users), pd.Series([2, 1, 0], users[::-1])]
    # By user: (1 + 0) / 2, (1 + 1) / 2, (1 + 1) / 2 against 1/2, 1, 1: nothing differs.
    theirs = [pd.Series([1, 1, 1], users), pd.Series([0, 1, 1], users)]
    assert paired_p(ours, theirs, "recall@5") == 1.0


def test_a_clear_gain_is_starred(project):
    params = two_seeds(project)
    for seed in (1, 2):
        project.ranks(f"office/tiger/ce/seed{seed}", [0] * 30 + [1] * 10)
        project.ranks(f"office/tiger/apao-pairwise/seed{seed}", [1] * 30 + [1] * 10)
    report("table1", params)
    text = (project.folder / "results/tables/table1.md").read_text()
    assert r"+10.0\* |" in text
    p = row(pd.read_csv("results/tables/table1.csv"), "apao-pairwise", "ndcg@10")["p"]
    assert p < 1e-6
