"""The workflow as a user runs it: its list of jobs, its outputs, and what it reruns."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from helpers.project import ROOT, Project, make_workflow, write_interactions
from shorten import shorten

from apao.study.params import load

pytestmark = pytest.mark.slow


def jobs(printed: str) -> dict[str, int]:
    """Number of jobs per rule, from the table that Snakemake prints."""
    table = printed.rsplit("Job stats:", 1)[-1] if "Job stats:" in printed else ""
    return {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", table, flags=re.MULTILINE)}


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
    assert "Nothing to be done" in finished.snakemake("all")


def test_changed_beta_reruns_that_objective_alone(project: Project):
    project.edit("objectives", "apao-pointwise", "beta", value=0.7)
    printed = project.snakemake("-n", "all")
    changed = _trained(printed)
    # The sweep's point at 0.1, so far the objective's plain run, now needs an override.
    assert changed == {
        "toy/tiger/apao-pointwise/seed42",
        "toy/llama/apao-pointwise/seed42",
        "toy/tiger/apao-pointwise+beta=0.1/seed42",
    }
    counts = jobs(printed)
    assert "embed" not in counts
    assert "codes" not in counts


def _runs(project: Project):
    params = load(project.folder / "params.yaml")
    return set(params.all_runs())


def _outputs(printed: str) -> list[str]:
    return re.findall(r"^    output: (.*)$", printed, flags=re.MULTILINE)


def test_changed_drawing_reruns_no_training(project: Project):
    project.edit("studies", "small", "figure5", "objectives", value=["apao-pointwise", "ce"])
    counts = jobs(project.snakemake("-n", "all"))
    assert counts == {"report_figure5": 1, "all": 1, "total": 2}


def test_another_study_of_a_kind_takes_params_yaml_alone(project: Project):
    study = project.params()["studies"]["small"]["figure2"] | {"title": "Parts of APAO"}
    project.edit("studies", "small", "ablation-toy", value=study)
    assert "1 of 1 steps (100%) done" in project.snakemake("report_ablation-toy")
    for suffix in ("csv", "pdf", "png"):
        figures = project.folder / "figures"
        assert (figures / f"ablation-toy.{suffix}").read_bytes() == (figures / f"figure2.{suffix}").read_bytes()
    project.snakemake("--report", "report.html", "all")
    assert "Parts of APAO" in (project.folder / "report.html").read_text()


def test_one_changed_interaction_reruns_what_depends_on_it(project: Project):
    write_interactions(project.folder / "toy.csv", seed=1)
    counts = jobs(project.snakemake("-n", "all"))
    assert counts["preprocess"] == 1
    assert counts["train"] == len(_runs(project))


def test_vectors_and_codes_of_the_user_count_by_their_content(tmp_path: Path):
    """One dataset has codes made from a user's vectors, another has a user's codes."""
    project = make_workflow(tmp_path)
    items = [f"i{n}" for n in range(12)]
    vectors, codes = project.folder / "vectors.npy", project.folder / "index.json"
    np.save(vectors, np.random.default_rng(0).normal(size=(13, 4)).astype(np.float32))
    (project.folder / "ids.json").write_text(json.dumps([*items[::-1], "unknown"]))
    codes.write_text(json.dumps({item: [f"<a_{n % 3}>", f"<b_{n}>"] for n, item in enumerate(items)}))
    project.edit("embedders", "mine", value={"file": "vectors.npy", "ids": "ids.json"})
    project.edit("codes", "toy", "embedder", value="mine")
    project.edit("codes", "given", value={"method": "file", "path": "index.json"})
    project.edit("datasets", "given", value=project.params()["datasets"]["toy"] | {"codes": "given"})
    targets = ["data/toy/codes.parquet", "data/given/codes.parquet"]
    project.snakemake(*targets)
    made = pd.read_parquet(project.folder / targets[1])
    raw_ids = pd.read_parquet(project.folder / "data/given/items.parquet")["raw_id"]
    assert made["level_2"].tolist() == [int(raw.removeprefix("i")) for raw in raw_ids]
    log = (project.folder / "logs/toy/embed.log").read_text()
    assert "vectors.npy: 13 rows, of which 1 belong to no item (such as 'unknown')" in log

    for path in (vectors, codes):
        path.touch()
    assert "Nothing to be done" in project.snakemake(*targets)
    codes.write_text(json.dumps({item: [f"<a_{n % 4}>", f"<b_{n}>"] for n, item in enumerate(items)}))
    assert jobs(project.snakemake("-n", *targets)) == {"codes": 1, "total": 1}
    np.save(vectors, np.ones((13, 4), dtype=np.float32))
    assert jobs(project.snakemake("-n", *targets)) == {"codes": 2, "embed": 1, "total": 3}


def test_new_file_times_rerun_nothing(project: Project):
    for path in sorted(project.folder.rglob("*"), reverse=True):
        if path.is_file() and ".snakemake/" not in str(path):
            path.touch()
    assert "Nothing to be done" in project.snakemake("all")


def test_code_counts_and_comments_do_not(project: Project):
    project.take_code()
    assert "Nothing to be done" in project.snakemake("all", "-n")
    project.replace("training/loop.py", '"""The training loop of one run', '"""How one run is trained')
    assert "Nothing to be done" in project.snakemake("all", "-n")
    project.replace("objectives/apao.py", "import torch\n", "import torch\n\nNEW = 1\n")
    printed = project.snakemake("all", "-n")
    trained = re.findall(r"^rule train:.*?wildcards: (.*?)$", printed, flags=re.MULTILINE | re.DOTALL)
    assert trained
    assert all("objective=apao-" in wildcards for wildcards in trained), trained
    assert not jobs(printed).keys() & {"embed", "codes", "baselines"}


def test_any_run_is_a_target(project: Project):
    target = "results/toy/llama/apao-pointwise+beta=0.4+epochs=1/seed7/metrics.json"
    project.snakemake(target)
    metrics = json.loads((project.folder / target).read_text())
    assert metrics["run"] == "toy/llama/apao-pointwise+beta=0.4+epochs=1/seed7"
    assert len(pd.read_csv(project.folder / target.replace("metrics.json", "history.csv"))) == 1


def test_runs_that_start_from_another_share_it_and_follow_it(project: Project):
    """An objective that starts from the finished ``ce`` is trained alone; a change of ``ce`` retrains both."""
    later = [f"results/toy/tiger/{name}+epochs=1/seed42/metrics.json" for name in ("s-dpo", "ce->point")]
    assert jobs(project.snakemake("-n", *later))["train"] == 2
    fresh = [target.replace("seed42", "seed9") for target in later]
    assert _trained(project.snakemake("-n", *fresh)) == {
        "toy/tiger/ce/seed9",
        "toy/tiger/s-dpo+epochs=1/seed9",
        "toy/tiger/ce->point+epochs=1/seed9",
    }
    project.snakemake(later[0])
    assert "Nothing to be done" in project.snakemake("-n", later[0])
    project.edit("objectives", "ce", "eos", value=False)
    assert _trained(project.snakemake("-n", later[0])) == {
        "toy/tiger/ce/seed42",
        "toy/tiger/s-dpo+epochs=1/seed42",
    }


def _trained(printed: str) -> set[str]:
    return set(re.findall(r"results/(\S+?)/model\.safetensors", "\n".join(_outputs(printed))))


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
    printed = finished.snakemake("-n", target, code=1)
    assert expected in printed
    assert "Traceback" not in printed


def test_unknown_config_and_bad_params_are_one_clear_line(project: Project):
    printed = project.snakemake("-n", "all", "--config", "scael=paper", code=1)
    assert "did you mean 'scale'" in printed
    project.edit("objectives", "ce", "epoch", value=3)
    printed = project.snakemake("-n", "all", code=1)
    assert re.search(r"params\.yaml:\d+: objectives\.ce", printed)
    assert "Traceback" not in printed


def test_paper_scale_lists_every_run(tmp_path: Path):
    """Every run of Table 1 and Figures 2 to 5 on four datasets with the paper's sizes and seeds."""
    (tmp_path / "workflow").symlink_to(ROOT / "workflow")
    for name in ("params.yaml", "tuned.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    printed = Project(tmp_path).snakemake("-n", "all", "--config", "scale=paper")
    params = load(ROOT / "params.yaml", "paper")
    wanted = {str(run) for run in params.all_runs()}
    listed = set(re.findall(r"results/(\S+?)/model\.safetensors", "\n".join(_outputs(printed))))
    assert listed == wanted
    assert len([run for run in wanted if "/apao-pairwise/" in run]) >= 4 * 2 * 5


def test_gpu_is_asked_for_only_where_there_is_one(finished: Project):
    printed = finished.snakemake("-n", "-F", "all")
    from apao.devices import has_gpu

    assert ("gpu=1" in printed) == has_gpu()


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
