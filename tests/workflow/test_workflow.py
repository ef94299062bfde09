"""The workflow as a user runs it: its list of jobs, its outputs, and what it reruns."""

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml
from helpers.project import ROOT, Project, write_interactions
from shorten import shorten

from apao.study.params import load

pytestmark = pytest.mark.slow


def test_every_table_and_figure_is_made(finished: Project):
    params = load(finished.folder / "params.yaml")
    for name, study in params.chosen_studies.items():
        for path in study.outputs(name):
            assert (finished.folder / path).stat().st_size > 0, path


def test_table1_has_every_run_and_the_baselines(finished: Project):
    table = pd.read_csv(finished.folder / "results/tables/table1.csv")
    rows = set(zip(table["backbone"], table["objective"], strict=True))
    trained = {(b, o) for b in ("tiger", "llama") for o in ("ce", "apao-pointwise")}
    assert trained <= rows
    assert {"most-popular", "random"} <= set(table["objective"])
    assert {"backbone", "objective", "dataset", "metric", "value"} <= set(table.columns)
    metrics = json.loads((finished.folder / "results/toy/tiger/ce/seed42/metrics.json").read_text())
    shown = table.query("backbone == 'tiger' and objective == 'ce' and metric == 'recall@10'")["value"].item()
    assert shown == pytest.approx(metrics["test"]["recall@10"])


def test_nothing_changed_runs_nothing(finished: Project):
    assert finished.snakemake("all").jobs == []


@pytest.mark.parametrize("tracker", ["mlflow", "wandb", "none"])
def test_another_tracker_runs_nothing(finished: Project, tracker: str):
    assert finished.snakemake("-n", "all", "--config", f"tracker={tracker}").jobs == []


def test_changed_beta_reruns_that_objective_alone(project: Project):
    project.edit("objectives", "apao-pointwise", "beta", value=0.7)
    found = project.snakemake("-n", "all")
    # The sweep's point at 0.1, so far the objective's plain run, now needs an override.
    assert found.trained == {
        "toy/tiger/apao-pointwise/seed42",
        "toy/llama/apao-pointwise/seed42",
        "toy/tiger/apao-pointwise+beta=0.1/seed42",
    }
    assert found.rules["train"] == 3 and not found.rules.keys() & {"preprocess", "embed", "codes", "baselines"}


def test_changed_drawing_reruns_no_training(project: Project):
    project.edit("studies", "small", "figure5", "objectives", value=["apao-pointwise", "ce"])
    assert project.snakemake("-n", "all").rules == {"report_figure5": 1, "all": 1}


def test_another_study_of_a_kind_takes_params_yaml_alone(project: Project):
    study = project.params()["studies"]["small"]["figure2"] | {"title": "Parts of APAO"}
    project.edit("studies", "small", "ablation-toy", value=study)
    assert [job.finished for job in project.snakemake("report_ablation-toy").jobs] == [True]
    for suffix in ("csv", "pdf", "png"):
        figures = project.folder / "figures"
        assert (figures / f"ablation-toy.{suffix}").read_bytes() == (figures / f"figure2.{suffix}").read_bytes()
    project.snakemake("--report", "report.html", "all")
    assert "Parts of APAO" in (project.folder / "report.html").read_text()


def test_one_changed_interaction_reruns_what_depends_on_it(project: Project):
    write_interactions(project.folder / "toy.csv", seed=1)
    found = project.snakemake("-n", "all")
    assert found.rules["preprocess"] == 1
    assert found.trained == {str(run) for run in load(project.folder / "params.yaml").all_runs()}


def test_new_file_times_rerun_nothing(project: Project):
    for path in sorted(project.folder.rglob("*"), reverse=True):
        if path.is_file() and ".snakemake/" not in str(path):
            path.touch()
    assert project.snakemake("all").jobs == []


def test_code_counts_and_comments_do_not(project: Project):
    project.take_code()
    assert project.snakemake("all", "-n").jobs == []
    project.replace("training/loop.py", '"""The training loop of one run', '"""How one run is trained')
    assert project.snakemake("all", "-n").jobs == []
    project.replace("objectives/apao.py", "import torch\n", "import torch\n\nNEW = 1\n")
    found = project.snakemake("all", "-n")
    runs = {str(run) for run in load(project.folder / "params.yaml").all_runs()}
    assert found.trained == {run for run in runs if "/apao-" in run}
    assert not found.rules.keys() & {"embed", "codes", "baselines"}


def test_any_run_is_a_target(project: Project):
    target = "results/toy/llama/apao-pointwise+beta=0.4+epochs=1/seed7/metrics.json"
    project.snakemake(target)
    metrics = json.loads((project.folder / target).read_text())
    assert metrics["run"] == "toy/llama/apao-pointwise+beta=0.4+epochs=1/seed7"
    assert len(pd.read_csv(project.folder / target.replace("metrics.json", "history.csv"))) == 1


def test_runs_that_start_from_another_share_it_and_follow_it(project: Project):
    """An objective that starts from the finished ``ce`` is trained alone; a change of ``ce`` retrains both."""
    later = [f"results/toy/tiger/{name}+epochs=1/seed42/metrics.json" for name in ("s-dpo", "ce->point")]
    assert project.snakemake("-n", *later).rules["train"] == 2
    fresh = [target.replace("seed42", "seed9") for target in later]
    assert project.snakemake("-n", *fresh).trained == {
        "toy/tiger/ce/seed9",
        "toy/tiger/s-dpo+epochs=1/seed9",
        "toy/tiger/ce->point+epochs=1/seed9",
    }
    project.snakemake(later[0])
    assert project.snakemake("-n", later[0]).jobs == []
    project.edit("objectives", "ce", "eos", value=False)
    assert project.snakemake("-n", later[0]).trained == {
        "toy/tiger/ce/seed42",
        "toy/tiger/s-dpo+epochs=1/seed42",
    }


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("results/tay/llama/ce/seed1/metrics.json", "did you mean 'toy'"),
        ("results/toy/lama/ce/seed1/metrics.json", "did you mean 'llama'"),
        ("results/toy/llama/apao-pairwize/seed1/metrics.json", "did you mean 'apao-pairwise'"),
        ("results/toy/llama/apao-pairwise+betta=1/seed1/metrics.json", "did you mean 'beta'"),
        ("results/toy/llama/apao-pairwise+beta=0.40/seed1/metrics.json", "a run has one spelling"),
        ("results/toy/llama/apao-pairwise+beta=-1/seed1/metrics.json", "greater than or equal to 0"),
    ],
)
def test_misspelt_target_is_one_clear_line(finished: Project, target: str, expected: str):
    printed = finished.snakemake("-n", target, code=1).output
    assert expected in printed
    assert "Traceback" not in printed


def test_unknown_config_and_bad_params_are_one_clear_line(project: Project):
    printed = project.snakemake("-n", "all", "--config", "scael=paper", code=1).output
    assert "did you mean 'scale'" in printed
    printed = project.snakemake("-n", "all", "--config", "tracker=mlflw", code=1).output
    assert "error: unknown tracker 'mlflw'; did you mean 'mlflow'?" in printed and "Traceback" not in printed
    project.edit("objectives", "ce", "epoch", value=3)
    printed = project.snakemake("-n", "all", code=1).output
    assert re.search(r"params\.yaml:\d+: objectives\.ce", printed)
    assert "Traceback" not in printed


def test_paper_scale_lists_every_run(tmp_path: Path):
    """Every run of Table 1 and Figures 2 to 5 on four datasets with the paper's sizes and seeds."""
    (tmp_path / "workflow").symlink_to(ROOT / "workflow")
    for name in ("params.yaml", "tuned.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    found = Project(tmp_path).snakemake("-n", "all", "--config", "scale=paper")
    wanted = {str(run) for run in load(ROOT / "params.yaml", "paper").all_runs()}
    assert found.trained == wanted
    assert len([run for run in wanted if "/apao-pairwise/" in run]) >= 4 * 2 * 5


def test_what_computes_with_a_model_asks_for_the_gpu(finished: Project):
    for gpus in (0, 1):
        jobs = finished.snakemake("-n", "-F", "all", "--config", f"gpus={gpus}").jobs
        asking = {job.rule for job in jobs if job.gpus}
        assert asking == ({"embed", "train", "evaluate", "exact", "beams", "decoding_time"} if gpus else set())


def test_report_is_one_file(finished: Project):
    finished.snakemake("--report", "report.html", "all")
    page = (finished.folder / "report.html").read_text()
    assert "figure2" in page
    assert "table1" in page
    assert not re.search(r'<(script|link|img)[^>]+(src|href)="https?://', page)


def test_shortened_params_are_valid(tmp_path: Path):
    path = tmp_path / "short.yaml"
    path.write_text(shorten((ROOT / "params.yaml").read_text()))
    short, full = load(path), load(ROOT / "params.yaml")
    assert short.chosen_studies.keys() == full.chosen_studies.keys()
    assert yaml.safe_load(path.read_text())["recipes"]["small"]["training"]["epochs"] == 1
