from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_1samp

from apao.errors import UserError
from apao.report import comparisons
from apao.report.comparisons import Experiment, Verdict, _gain_over_seeds
from apao.report.kinds.comparison import _gain_cells, _gains_note, _marked
from apao.report.results import Estimate, Results
from apao.stages.report import report
from apao.study.runs import Run
from apao.study.tuned import Tuning

OBJECTIVES = ["ce", "apao-pairwise"]
RUNS = ("office/tiger/ce/seed1", "office/tiger/ce/seed2")


def two_seeds(project):
    """office/tiger: ce at 0.04 and 0.06, apao-pairwise at 0.05 and 0.06; hits of two and four users of four."""
    study = {"datasets": ["office"], "backbones": ["tiger"], "objectives": OBJECTIVES, "seeds": [1, 2]}
    params = project.params(table1=study)
    for objective, values, ranks in (("ce", (0.04, 0.06), [1, 0, 1, 0]), ("apao-pairwise", (0.05, 0.06), [1] * 4)):
        for seed, value in zip((1, 2), values, strict=True):
            run = f"office/tiger/{objective}/seed{seed}"
            # Validation is far better than test, so that a mix-up shows.
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


def test_what_the_lists_are_like(project):
    """In the CSV for objectives whose runs all have it: earlier evaluations have none, and a group may have no user."""
    params = two_seeds(project)
    for seed, value in ((1, 0.2), (2, 0.4)):
        lists = {"coverage@20": value, "cold_item_recall@20": None}
        project.metrics(f"office/tiger/ce/seed{seed}", {}, **lists)
    path = project.folder / "results/office/tiger/apao-pairwise/seed2/metrics.json"
    content = json.loads(path.read_text())
    del content["test"]["coverage@20"]
    path.write_text(json.dumps(content))
    report("table1", params)
    frame = pd.read_csv(project.folder / "results/tables/table1.csv")
    coverage = row(frame, "ce", "coverage@20")
    assert coverage["value"] == pytest.approx(0.3) and coverage["sd"] == pytest.approx(math.sqrt(2) * 0.1)
    assert coverage["paper":].isna().all() and (coverage["seeds"], coverage["runs"]) == ("1 2", 2)
    assert row(frame, "apao-pairwise", "gini@20")["value"] == pytest.approx(0.3)
    absent = frame[frame["metric"].isin(["coverage@20", "cold_item_recall@20"])]
    assert sorted(zip(absent["objective"], absent["metric"], strict=True)) == [
        ("apao-pairwise", "cold_item_recall@20"),
        ("ce", "coverage@20"),
    ]


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
    popular = row(frame, "most-popular", "recall@10")
    assert (popular["backbone"], popular["value"]) == ("baseline", 0.02)
    assert popular["best_baseline":].isna().all()


def test_an_override_that_changes_nothing_keeps_the_papers_number(project):
    """``ce`` of tiger has a dropout of 0.1, with which a study may spell it beside others."""
    two_seeds(project)
    same, other = "ce+dropout=0.1", "ce+dropout=0"
    study = {"datasets": ["office"], "backbones": ["tiger"], "objectives": [same, other], "seeds": [1]}
    project.metrics(f"office/tiger/{other}/seed1", {"ndcg@10": 0.03})
    project.ranks(f"office/tiger/{other}/seed1", [1, 0, 0, 0])
    report("table1", project.params(table1=study))
    frame = pd.read_csv(project.folder / "results/tables/table1.csv")
    assert row(frame, same, "ndcg@10")["paper"] == 0.0292
    assert math.isnan(row(frame, other, "ndcg@10")["paper"])
    text = (project.folder / "results/tables/table1.md").read_text()
    assert [line for line in text.splitlines() if same in line and "0.0292" in line]


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
    # Recall, then NDCG, each with its interval beside the paper's; half the users are hit at the first place.
    ndcg = [line for line in lines if line[1] == "ce"][2]
    assert ndcg[2] == "0.0500 ± 0.0141" and ndcg[3].startswith("0.0000 to ") and ndcg[4:6] == ["0.0292", "+0.0208"]
    gain = next(line for line in lines if line[1] == "gain of apao-pairwise")
    assert gain[2] == "+0.0100" and gain[7] == "0.5"
    assert gain[3].startswith("+0.0000 to +")
    assert [line[1] for line in lines if line[0] == "baseline"] == ["most-popular"]
    assert any(line[1] == "random" for line in lines)
    for said in ("Scale tiny", "dataset office", "seeds 1, 2", "4 runs", "Means over 2 seeds"):
        assert said in text
    assert "The paper does not use" not in text


def test_latex_holds_the_same_numbers(made):
    text = (made / "table1.tex").read_text()
    assert r"\textbf{0.0550 $\pm$ 0.0071}" in text
    assert r"0.0500 $\pm$ 0.0141 & 0.0000 to 1.0000 & 0.0292 & +0.0208" in text
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
    assert "The paper does not use ml-100k" in text
    assert "±" not in text
    assert "One seed" in text


def test_a_users_scores_are_means_over_seeds_at_both_levels(project):
    params = two_seeds(project)
    project.ranks("office/tiger/ce/seed1", [1, 3, 11, 0], group=2)
    project.ranks("office/tiger/ce/seed2", [1, 0, 1, 0], group=2)
    scores = Results(params).user_scores([Run("office", "tiger", "ce", (), seed) for seed in (1, 2)])
    assert scores["recall@10"].tolist() == [1, 0.5, 0.5, 0]
    assert scores["ndcg@10"].tolist() == pytest.approx([1, 0.25, 0.5, 0])
    # Two items per code: rank 1 is item rank 1 or 2, rank 3 is 5 or 6, half of them among the first five.
    first_two = (1 + 1 / math.log2(3)) / 2
    assert scores["item_ndcg@10"].tolist()[::2] == pytest.approx([first_two, first_two / 2])
    assert scores["item_recall@5"].tolist() == pytest.approx([1, 0.25, 0.5, 0])


def test_p_by_hand(made):
    # Differences 0, 1, 0, 1: t = sqrt(3) with 3 degrees of freedom, where p = 1/2 - 1/pi.
    found = row(pd.read_csv(made / "table1.csv"), "apao-pairwise", "recall@10")
    assert found["best_baseline"] == "ce"
    assert found["p_users"] == pytest.approx(0.5 - 1 / math.pi)
    # The only comparison of its family.
    assert found["p_users_holm"] == found["p_users"]
    # Seeds 0.10 and 0.12 against 0.10: t = 1 with one degree of freedom.
    assert found["p_seeds"] == pytest.approx(0.5)
    assert (found["ci_low"], found["ci_high"]) == (1, 1)
    assert 0 <= found["gain_ci_low"] < 0.5 < found["gain_ci_high"] <= 1
    assert "*" not in (made / "table1.tex").read_text().replace("table*", "").replace("apao-*", "")


def test_ce_alone_has_no_baseline_but_an_interval(made):
    found = row(pd.read_csv(made / "table1.csv"), "ce", "item_recall@10")
    assert found[["best_baseline", "gain_percent", "p_users", "p_users_holm", "p_seeds", "gain_ci_low"]].isna().all()
    assert 0 <= found["ci_low"] < 0.5 < found["ci_high"] <= 1


def test_the_note_says_what_was_tuned_where(project):
    params = two_seeds(project)
    report("table1", params)
    path = project.folder / "results/tables/table1.md"
    assert "No objective is tuned for a dataset." in path.read_text()
    way = "apao tune: best validation ndcg@10 of eta in 0.1, 0.2, seed 1"
    tunings = {"apao-pairwise": (Tuning(chosen_by=way, values={"office/tiger": {"eta": "2e-1"}}),)}  # a word in YAML
    tuned = params.model_copy(update={"tuned": tunings})
    report("table1", tuned)
    assert "No objective is tuned for a dataset." in path.read_text(), "the runs were trained before the tuning"
    for seed in (1, 2):
        run = Run.of("office", "tiger", "apao-pairwise", seed)
        objective = params.resolve(run).for_training()["objective"]
        project.record(run, params, objective=objective | {"eta": 0.2})
    report("table1", tuned)
    assert f"apao-pairwise: eta by {way} (office/tiger). Not tuned for a dataset: ce." in path.read_text()
    # A value of the training, by a search.
    way = "apao search: best of 20 trials of search office, validation ndcg@10"
    searched = tunings | {"ce": (Tuning(chosen_by=way, values={"office/tiger": {"lr": 0.25}}),)}
    for seed in (1, 2):
        run = Run.of("office", "tiger", "ce", seed)
        training = params.resolve(run).for_training()["training"]
        project.record(run, params, training=training | {"lr": 0.25})
    report("table1", params.model_copy(update={"tuned": searched}))
    assert f"ce: lr by {way} (office/tiger)." in path.read_text()


ROWS = ["ce", "msl", "ce->point", "apao-pointwise", "apao-pairwise+eta=0"]


def test_gains_over_the_papers_baselines_and_over_all(project):
    """bear is better than ce but not in the paper; an APAO objective may have any name."""
    objectives = ["ce", "bear", "mine"]
    params = project.params(
        table1={"datasets": ["office"], "backbones": ["tiger"], "objectives": objectives, "seeds": [1]}
    )
    for objective, value in zip(objectives, (0.02, 0.04, 0.05), strict=True):
        project.metrics(f"office/tiger/{objective}/seed1", {"ndcg@10": value})
    project.fill("table1", params)
    report("table1", params)
    mine = row(pd.read_csv("results/tables/table1.csv"), "mine", "ndcg@10")
    assert (mine["best_baseline"], mine["best_of_all"]) == ("ce", "bear")
    assert (mine["gain_percent"], mine["gain_over_all_percent"]) == pytest.approx((150, 25))
    text = (project.folder / "results/tables/table1.md").read_text()
    assert "gain of mine, %" in text and "gain of bear" not in text and "same backbone (ce):" in text


def several(project, seeds):
    """Results in which ce is the best baseline by NDCG@10, msl by Recall@10, and APAO better than both."""
    params = project.params(
        table1={"datasets": ["office"], "backbones": ["tiger", "llama"], "objectives": ROWS, "seeds": seeds}
    )
    for backbone in ("tiger", "llama"):
        for i, objective in enumerate(ROWS):
            level = {"ce": (0.03, 0.05), "msl": (0.02, 0.06)}.get(objective, (0.05, 0.09))
            for seed in seeds:
                run = f"office/{backbone}/{objective}/seed{seed}"
                scores = {"ndcg@10": level[0] + 1e-4 * seed, "recall@10": level[1] + 1e-4 * seed}
                project.metrics(run, scores)
                hits = {"ce": 40, "msl": 42}.get(objective, 42 + 10 * i)
                project.ranks(run, [1] * hits + [0] * (200 - hits), group=1 + (backbone == "llama"))
    project.fill("table1", params)
    return params


def test_the_best_baseline_is_none_of_the_papers_own(project):
    report("table1", several(project, [1]))
    frame = pd.read_csv("results/tables/table1.csv").query("backbone == 'tiger'")
    for metric, best, other in (("ndcg@10", "ce", "msl"), ("item_recall@10", "msl", "ce")):
        against = {objective: row(frame, objective, metric)["best_baseline"] for objective in ROWS}
        assert against == dict.fromkeys(ROWS, best) | {best: other}
    assert row(frame, "ce->point", "ndcg@10")["gain_percent"] == pytest.approx(100 * (0.0501 / 0.0301 - 1))


def test_an_objective_under_two_names_is_not_compared_with_itself(project):
    """``ce+eos=true`` is ``ce``, whose eos is true by default."""
    objectives = ["ce", "ce+eos=true", "msl"]
    study = {"datasets": ["office"], "backbones": ["tiger"], "objectives": objectives, "seeds": [1]}
    params = project.params(table1=study)
    for objective, value in (("ce", 0.03), ("msl", 0.02)):
        project.metrics(f"office/tiger/{objective}/seed1", {"ndcg@10": value})
    project.fill("table1", params)
    report("table1", params)
    assert row(pd.read_csv("results/tables/table1.csv"), "ce", "ndcg@10")["best_baseline"] == "msl"


@pytest.mark.parametrize(("paper", "marked"), [(0.05, True), (0.1, False), (0.15, False), (0.2, False), (0.25, True)])
def test_the_papers_number_is_marked_outside_our_interval(paper, marked):
    assert _marked(paper, 0.1, 0.2) == f"{paper:.4f}{'†' if marked else ''}"


def test_holm_takes_one_metric_of_the_dataset_as_a_family(project):
    report("table1", several(project, [1]))
    frame = pd.read_csv("results/tables/table1.csv")
    for _, family in frame[frame["best_baseline"].notna()].groupby("metric"):
        assert len(family) == 2 * len(ROWS)
        smallest = family["p_users"].min()
        ties = (family["p_users"] == smallest).sum()
        assert family.loc[family["p_users"] == smallest, "p_users_holm"].tolist() == pytest.approx(
            [10 * smallest] * ties
        )
        assert (family["p_users_holm"] >= family["p_users"]).all()


def test_one_seed_is_starred_by_users_and_several_by_seeds(project):
    one = several(project, [1])
    report("table1", one)
    lines = (project.folder / "results/tables/table1.md").read_text().splitlines()
    gains = {line.split("|")[2].strip(): line for line in lines if "gain of" in line}
    assert gains["gain of ce-\\>point, %"].count("\\*") > 0
    notes = "\n".join(lines)
    for said in (
        "paired t-test over the users after Holm",
        "(10: every objective and backbone)",
        "Test users: office 200",
    ):
        assert said in notes
    # Five seeds that differ little are far from the baseline's mean by the paper's test.
    report("table1", several(project, [1, 2, 3, 4, 5]))
    text = (project.folder / "results/tables/table1.md").read_text()
    assert "one-sample t-test of the 5 seeds" in text
    frame = pd.read_csv("results/tables/table1.csv")
    starred = next(line for line in text.splitlines() if "gain of apao-pointwise" in line)
    assert starred.split("|")[5].strip().endswith("\\*")
    assert row(frame.query("backbone == 'tiger'"), "apao-pointwise", "ndcg@10")["p_seeds"] < 1e-4


def test_intervals_are_over_three_seeds_where_that_is_wider(project):
    """As scipy's; of a gain those of the differences with the same seed."""
    params = several(project, [1, 2, 3])
    ours, theirs = [0.9, 0.1, 0.5], [0.3, 0.31, 0.29]
    for seed, own, base in zip((1, 2, 3), ours, theirs, strict=True):
        for name, value in (("apao-pointwise", own), ("ce", base), ("msl", 0.0)):
            project.metrics(f"office/tiger/{name}/seed{seed}", {"ndcg@10": value})
    report("table1", params)
    frame = pd.read_csv("results/tables/table1.csv").query("backbone == 'tiger'")
    found = row(frame, "apao-pointwise", "ndcg@10")
    for ends, of in ((["ci_low", "ci_high"], ours), (["gain_ci_low", "gain_ci_high"], np.subtract(ours, theirs))):
        expected = ttest_1samp(of, 0).confidence_interval(0.95)
        assert found[ends].tolist() == pytest.approx([expected.low, expected.high])
    # Those of ce differ by less than its 200 users.
    other = row(frame, "ce", "ndcg@10")
    assert other["ci_high"] - other["ci_low"] > 2 * ttest_1samp(theirs, 0).confidence_interval(0.95).high - 0.6


def test_what_is_starred():
    verdict = Verdict(p_users=0.01, p_users_holm=0.2, p_seeds=0.01)
    assert verdict.starred(seeds=2) and not verdict.starred(seeds=1)
    assert Verdict(p_users_holm=0.009, p_seeds=0.2).starred(seeds=1)
    assert not Verdict(p_users_holm=0.011, p_seeds=0.2).starred(seeds=1)
    assert not Verdict().starred(seeds=1) and not Verdict().starred(seeds=2)


def test_identical_users_differ_by_nothing(project):
    params = two_seeds(project)
    for seed in (1, 2):
        project.ranks(f"office/tiger/ce/seed{seed}", [1, 2, 0, 7])
        project.ranks(f"office/tiger/apao-pairwise/seed{seed}", [1, 2, 0, 7])
    report("table1", params)
    found = row(pd.read_csv("results/tables/table1.csv"), "apao-pairwise", "item_ndcg@10")
    assert found[["gain_ci_low", "gain_ci_high", "p_users", "p_users_holm"]].tolist() == [0, 0, 1, 1]
    assert found["ci_low"] < found["ci_high"]


def test_ranks_of_other_users_are_named(project):
    params = two_seeds(project)
    project.ranks("office/tiger/ce/seed2", [1, 0, 1])
    with pytest.raises(UserError, match=r"ce/seed2/ranks\.parquet: has other test users than .*ce/seed1/ranks"):
        report("table1", params)


def test_ranks_without_a_column_are_named(project):
    params = two_seeds(project)
    path = project.folder / "results/office/tiger/ce/seed2/ranks.parquet"
    pd.read_parquet(path).drop(columns="group").to_parquet(path)
    with pytest.raises(UserError, match=r"ce/seed2/ranks\.parquet: not a table of ranks"):
        report("table1", params)


def test_rows_of_one_seed_beside_rows_of_several(project):
    """The note says of both what p is; a dataset without runs takes nothing from it."""
    one, several = (
        Experiment("tiger", "apao-pairwise", "proposed", runs, {}, pd.DataFrame(), "apao-pairwise")
        for runs in ((Run.parse("office/tiger/ce/seed1"),), tuple(map(Run.parse, RUNS)))
    )
    both = _gains_note({"office": 4, "beauty": 0}, {"office": [one, several], "beauty": []}, ["ce"])
    assert (
        "one-sample t-test of the 2 seeds" in both and "over the seeds, or, in rows of one seed, over the users" in both
    )
    assert "(2: every objective and backbone)" in both
    assert "rows of one seed" not in _gains_note({"office": 4}, {"office": [several]}, ["ce"])
    assert "needs several seeds" in _gains_note({"office": 4}, {"office": [one]}, ["ce"])
    other = _gains_note({"office": 4, "beauty": 4}, {"office": [one], "beauty": [one, one]}, ["ce"])
    assert "(office 1, beauty 2: every" in other


def experiment(objective, values, seeds=(1, 2, 3)):
    runs = tuple(Run.of("office", "tiger", objective, seed) for seed in seeds)
    return Experiment("tiger", objective, "", runs, {"ndcg@10": Estimate(values)}, pd.DataFrame(), objective)


def test_what_has_no_runs_is_never_the_best():
    absent, trained = experiment("msl", (), ()), experiment("ce", (0.1,), (1,))
    assert comparisons.best([absent, trained], "ndcg@10") is trained and comparisons.best([absent], "ndcg@10") is None


def test_a_gain_has_no_interval_over_seeds_that_differ():
    ours = experiment("apao-pointwise", (0.1, 0.2, 0.3))
    same, others = experiment("ce", (0.1,) * 3), experiment("ce", (0.1,) * 3, (1, 2, 4))
    assert not np.isnan(_gain_over_seeds((ours, same), "ndcg@10")).any()
    assert np.isnan(_gain_over_seeds((ours, others), "ndcg@10")).all()


@pytest.mark.parametrize(("low", "gain_low", "marked"), [(0.5, -1.0, False), (-1.0, 0.5, True)])
def test_the_papers_gain_is_marked_outside_the_interval_of_the_gain(low, gain_low, marked):
    one, other = experiment("apao-pointwise", (0.2,), (1,)), experiment("ce", (0.1,), (1,))
    verdict = Verdict(low=low, high=1, other="ce", gain_low=gain_low, gain_high=1)
    cells = _gain_cells("office", one, [other, one], "ndcg@10", {("tiger", one.objective, "ndcg@10"): verdict})
    assert cells["paper"].endswith("†") == marked
