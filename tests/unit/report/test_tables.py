from __future__ import annotations

import math

import pandas as pd
import pytest

from apao.errors import UserError
from apao.report.results import Results
from apao.report.sweeps import best_point
from apao.report.tuning import tunings
from apao.stages.report import report
from apao.study.paths import FIGURES, RESULTS, Collection


def cells(name):
    """Rows of the Markdown table, without its header."""
    with open(f"results/tables/{name}.md", encoding="utf-8") as file:
        lines = [line.strip().strip("|") for line in file if line.startswith("|")]
    return [[cell.strip() for cell in line.split("|")] for line in lines[2:]]


def test_table2(project):
    params = project.params(table2={"datasets": ["office", "ml-100k"]})
    sizes = {"users": 4905, "items": 2421, "interactions": 53258, "density_percent": 0.44869}
    project.json("data/office/stats.json", sizes)
    project.json("data/ml-100k/stats.json", {**sizes, "users": 943})
    report("table2", params)
    assert cells("table2") == [
        ["office", "4,905", "4,905", "+0", "2,421", "2,420", "+1", "53,258", "53,258", "+0", "0.45", "0.45", "+0.00"],
        ["ml-100k", "943", "–", "–", "2,421", "–", "–", "53,258", "–", "–", "0.45", "–", "–"],
    ]
    frame = pd.read_csv("results/tables/table2.csv").set_index(["dataset", "quantity"])
    assert frame.loc[("office", "items"), "difference"] == 1
    assert frame.loc[("office", "density_percent"), "value"] == 0.44869
    assert pd.isna(frame.loc[("ml-100k", "users"), "paper"])


def table3(project, two_stage):
    return project.params(
        table3={
            "datasets": ["office"],
            "backbones": ["tiger", "llama"],
            "one_stage": ["apao-pairwise"],
            "two_stage": two_stage,
            "seeds": [42],
        }
    )


def test_table3(project):
    params = table3(project, ["ce"])
    for backbone, one, two in (("tiger", 0.03, 0.04), ("llama", 0.025, 0.02)):
        project.metrics(f"office/{backbone}/apao-pairwise/seed42", {"ndcg@10": one})
        project.metrics(f"office/{backbone}/ce/seed42", {"ndcg@10": two})
    project.fill("table3", params)
    report("table3", params)
    # The paper: apao-pairwise 0.0337 with tiger, 0.0269 with llama; ce is not in its Table 3.
    tiger = (["0.0300", "0.0337", "−0.0037", "0.0270"], ["**0.0400**", "–", "–", "**0.0360**"])
    llama = (["**0.0250**", "0.0269", "−0.0019", "**0.0225**"], ["0.0200", "–", "–", "0.0180"])
    assert cells("table3") == [
        ["one", "apao-pairwise", *tiger[0], *llama[0]],
        ["two", "ce", *tiger[1], *llama[1]],
    ]
    frame = pd.read_csv("results/tables/table3.csv")
    code = frame[frame["metric"] == "ndcg@10"]
    assert code["stages"].tolist() == [1, 1, 2, 2]
    assert code["difference"].iloc[0] == pytest.approx(-0.0037)
    item = frame[frame["metric"] == "item_ndcg@10"]
    assert item["value"].tolist() == pytest.approx([0.027, 0.0225, 0.036, 0.018])
    assert item["paper"].isna().all()


def test_table3_sets_the_best_one_stage_objective_against_each_other(project):
    study = {"datasets": ["office"], "backbones": ["tiger"], "seeds": [1, 2]}
    stages = {"one_stage": ["apao-pointwise", "apao-pairwise"], "two_stage": ["s-dpo", "ce->point"]}
    params = project.params(table3={**study, **stages})
    for objective, values in (
        ("apao-pointwise", (0.03, 0.04)),
        ("apao-pairwise", (0.02, 0.02)),
        ("s-dpo", (0.01, 0.03)),
    ):
        for seed, value in zip((1, 2), values, strict=True):
            project.metrics(f"office/tiger/{objective}/seed{seed}", {"ndcg@10": value})
    project.fill("table3", params)
    report("table3", params)
    frame = pd.read_csv("results/tables/table3.csv")
    frame = frame[frame["metric"] == "ndcg@10"].set_index("objective")
    assert pd.isna(frame.loc["apao-pointwise", "best_one_stage"])
    assert frame.loc["apao-pointwise", ["gain_percent", "p_users", "p_seeds", "gain_ci_low"]].isna().all()
    others = frame.drop("apao-pointwise")
    assert others["best_one_stage"].tolist() == ["apao-pointwise"] * 3
    # 0.035 over 0.02.
    assert others["gain_percent"].iloc[:2].tolist() == pytest.approx([75, 75])
    # Seeds 0.03 and 0.04 against 0.02: t = 3 with one degree of freedom, where p = 1 - 2 atan(t) / pi.
    assert others["p_seeds"].iloc[0] == pytest.approx(1 - 2 * math.atan(3) / math.pi)
    smallest = others["p_users"].min()
    assert others["p_users_holm"].min() == pytest.approx(min(1, 3 * smallest))
    assert (frame["ci_low"] < frame["ci_high"]).all()
    text = (project.folder / "results/tables/table3.md").read_text()
    assert "Test users: office 200." in text


def test_table3_without_two_stage_objectives_says_so(project):
    params = table3(project, [])
    project.fill("table3", params)
    report("table3", params)
    text = (project.folder / "results/tables/table3.md").read_text()
    assert "has no two-stage objective" in text
    assert "best one-stage objective" not in text
    assert [row[1] for row in cells("table3")] == ["apao-pairwise"]


def test_table4_takes_the_last_best_epoch_and_the_mean_second(project):
    study = {"datasets": ["office"], "backbones": ["tiger", "llama"], "objectives": ["ce"], "seeds": [1, 2]}
    params = project.params(table4=study)
    project.history("office/tiger/ce/seed1", [10.0, 14.0, 12.0], [True, True, False])  # 12 s, best 2
    project.history("office/tiger/ce/seed2", [10.0, 10.0, 10.0, 10.0], [True, False, False, True])  # 10 s, best 4
    for seed in (1, 2):
        project.history(f"office/llama/ce/seed{seed}", [5.0], [True])
    report("table4", params)
    assert cells("table4") == [
        ["office", "tiger", "ce", "11.0 ± 1.4", "15.0", "−4.0", "3.0 ± 1.4", "45.0", "−42.0"],
        ["", "llama", "ce", "5.0 ± 0.0", "–", "–", "1.0 ± 0.0", "–", "–"],
    ]
    frame = pd.read_csv("results/tables/table4.csv").set_index(["backbone", "quantity"])
    assert frame.loc[("tiger", "seconds_per_epoch"), "difference"] == -4
    assert frame.loc[("tiger", "epochs"), "sd"] == pytest.approx(2**0.5)


def test_the_papers_numbers_stay_beside_an_override_that_changes_nothing(project):
    """In Tables 3 and 4, as in Table 1."""
    stages = {"datasets": ["office"], "backbones": ["tiger"], "one_stage": ["apao-pairwise+beta=0.2"], "two_stage": []}
    cost = {"datasets": ["office"], "backbones": ["tiger"], "objectives": ["ce+dropout=0.1"], "seeds": [42]}
    params = project.params(table3=stages | {"seeds": [42]}, table4=cost)
    for name in ("table3", "table4"):
        project.fill(name, params)
        report(name, params)
    ((_, _, _, paper, *_),) = cells("table3")
    assert paper == "0.0337"
    ((*_, seconds, _, _, _, _),) = cells("table4")
    assert seconds == "15.0"


def test_an_objective_of_one_and_of_two_stages_is_refused(project):
    with pytest.raises(UserError, match="ce"):
        project.params(
            table3={
                "datasets": ["office"],
                "backbones": ["tiger"],
                "one_stage": ["ce"],
                "two_stage": ["ce"],
                "seeds": [1],
            }
        )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("epoch,seconds\n1,2.0\n", "best"),
        ("epoch,seconds,best\n1,2.0,maybe\n", "dtype of bool"),
        ("epoch,seconds,best\n1,2.0,false\n", "no epoch is marked"),
        ("epoch,seconds,best\n1,soon,true\n", "soon"),
        ("epoch,seconds,best\n1,2.0,true\n2,,false\n", "an epoch has no number of seconds"),
        ("", "not a training history"),
        (f"epoch,seconds,best\n{'9' * 30},2.0,true\n", "not a training history"),
    ],
)
def test_a_broken_history_is_named(project, content, said):
    params = project.params(table4={"datasets": ["office"], "backbones": ["tiger"], "objectives": ["ce"], "seeds": [1]})
    project.path("results/office/tiger/ce/seed1/history.csv").write_text(content)
    with pytest.raises(UserError, match=f"office/tiger/ce/seed1/history.csv.*{said}"):
        report("table4", params)
    assert not (project.folder / "results/tables/table4.csv").exists()


def test_table5_chooses_on_validation_and_shares_the_plain_run(project):
    sweeps = {
        "b": {"objectives": ["apao-pairwise"], "key": "beta", "values": [0.4, 0.1, 0.2]},
        "e": {"objectives": ["apao-pairwise"], "key": "eta", "values": [1e-4, 3e-5]},
        "t": {"objectives": ["msl"], "key": "tau", "values": [1, 2]},
    }
    study = {"datasets": ["office"], "backbones": ["tiger"], "sweeps": ["b", "e", "t"], "seeds": [42]}
    params = project.params(sweeps, table5=study)
    # 0.2 and 1e-4 are the objective's own values: that point is the run without overrides.
    points = {"": (0.030, 0.9), "+beta=0.4": (0.040, 0.05), "+beta=0.1": (0.020, 0.8), "+eta=3e-5": (0.030, 0.7)}
    for overrides, (valid, test) in points.items():
        project.metrics(f"office/tiger/apao-pairwise{overrides}/seed42", {"ndcg@10": test}, {"ndcg@10": valid})
    for overrides, valid in (("", 0.01), ("+tau=2", 0.02)):
        project.metrics(f"office/tiger/msl{overrides}/seed42", {"ndcg@10": 0.1}, {"ndcg@10": valid})
    report("table5", params)
    # Equal validation for both eta: the smaller one. The paper only lists beta and eta.
    assert cells("table5") == [
        ["office", "tiger", "apao-pairwise", "β", "0.4", "0.2", "0.0400", "0.0500", "0.0450"],
        ["", "", "", "η", "3e-5", "3e-5", "0.0300", "0.7000", "0.6300"],
        ["", "", "msl", "τ", "2", "–", "0.0200", "0.1000", "0.0900"],
    ]
    frame = pd.read_csv("results/tables/table5.csv").set_index("key")
    columns = ["value", "paper", "valid_ndcg@10", "test_ndcg@10", "test_item_ndcg@10"]
    assert frame.loc["beta", columns].tolist() == pytest.approx([0.4, 0.2, 0.04, 0.05, 0.045])
    text = (project.folder / "results/tables/table5.md").read_text()
    assert "β of apao-pairwise in 0.4, 0.1, 0.2; η of apao-pairwise in 0.0001, 3e-5; τ of msl in 1, 2" in text


def test_the_best_value_is_one_that_was_run(project):
    study = {"datasets": ["office"], "backbones": ["tiger", "llama"], "sweeps": ["t"], "seeds": [1]}
    params = project.params({"t": {"objectives": ["msl"], "key": "tau", "values": [1, 2, 3]}}, table5=study)
    project.metrics("office/tiger/msl+tau=2/seed1", {"ndcg@10": 0.1}, {"ndcg@10": 0.02})
    found = Results(params, Collection(RESULTS, FIGURES, gaps=True))
    tiger, llama = (best_point(params.study("table5"), found, curve) for curve in params.study("table5").curves())
    assert tiger.value == 2 and math.isnan(llama.value)


def test_only_the_named_objectives_are_tuned(project):
    params = project.params(table5={"datasets": ["office"], "backbones": ["tiger"], "sweeps": ["beta"], "seeds": [1]})
    project.fill("table5", params)
    assert [name for name, _ in tunings("table5", params, ["apao-pairwise"])] == ["apao-pairwise"]
    assert {name for name, _ in tunings("table5", params, [])} == {"apao-pointwise", "apao-pairwise"}
