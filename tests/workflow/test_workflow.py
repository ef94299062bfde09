"""The workflow as a user runs it: what it lists, what it makes, and what it runs again."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
import yaml
from shorten import shorten
from tiny_project import BIN, ROOT, Project, write_interactions

from apao.params import load
from apao.studies import outputs

pytestmark = pytest.mark.slow


def jobs(printed: str) -> dict[str, int]:
    """The table of jobs that Snakemake prints."""
    table = printed.rsplit("Job stats:", 1)[-1] if "Job stats:" in printed else ""
    return {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", table, flags=re.MULTILINE)}


@pytest.fixture
def project(finished: Project, tmp_path: Path) -> Project:
    """A copy of the finished study, file times kept, that a test may change."""
    shutil.copytree(finished.folder, tmp_path / "study", symlinks=True)
    return Project(tmp_path / "study")


def test_every_table_and_figure_is_made(finished: Project):
    params = load(finished.folder / "params.yaml")
    for study in params.study.chosen():
        for path in outputs(study):
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
    # The sweep's point at 0.1, until now the objective's own run, is one with an override from now on.
    assert changed == {
        "toy/tiger/apao-pointwise/seed42",
        "toy/llama/apao-pointwise/seed42",
        "toy/tiger/apao-pointwise+beta=0.1/seed42",
    }
    counts = jobs(printed)
    assert "embed_items" not in counts
    assert "code_items" not in counts


def _runs(project: Project):
    params = load(project.folder / "params.yaml")
    return set(params.all_runs())


def _outputs(printed: str) -> list[str]:
    return re.findall(r"^    output: (.*)$", printed, flags=re.MULTILINE)


def test_changed_drawing_reruns_no_training(project: Project):
    project.edit("studies", "small", "figure5", "objectives", value=["apao-pointwise", "ce"])
    counts = jobs(project.snakemake("-n", "all"))
    assert counts == {"draw_figure5": 1, "all": 1, "total": 2}


def test_one_changed_interaction_reruns_what_depends_on_it(project: Project):
    write_interactions(project.folder / "toy.csv", seed=1)
    counts = jobs(project.snakemake("-n", "all"))
    assert counts["preprocess_dataset"] == 1
    assert counts["train_run"] == len(_runs(project))


def test_new_file_times_rerun_nothing(project: Project):
    for path in sorted(project.folder.rglob("*"), reverse=True):
        if path.is_file() and ".snakemake/" not in str(path):
            path.touch()
    assert "Nothing to be done" in project.snakemake("all")


def test_code_counts_and_comments_do_not(project: Project):
    project.take_code()
    assert "Nothing to be done" in project.snakemake("all", "-n")
    project.replace("training/loop.py", '"""Training one run', '"""How one run is trained')
    assert "Nothing to be done" in project.snakemake("all", "-n")
    project.replace("objectives/apao.py", "import torch\n", "import torch\n\nNEW = 1\n")
    printed = project.snakemake("all", "-n")
    trained = re.findall(r"^rule train_run:.*?wildcards: (.*?)$", printed, flags=re.MULTILINE | re.DOTALL)
    assert trained
    assert all("objective=apao-" in wildcards for wildcards in trained), trained
    assert not jobs(printed).keys() & {"embed_items", "code_items", "evaluate_baselines"}


def test_what_is_made_again_is_the_same(project: Project, finished: Project):
    """On eight cores as on two, after the data and two runs were removed."""
    runs = ["toy/tiger/apao-pairwise/seed42", "toy/llama/ce/seed42"]
    shutil.rmtree(project.folder / "data")
    for run in runs:
        shutil.rmtree(project.folder / "results" / run)
    project.run("snakemake", "--cores", "8", *(f"results/{run}/metrics.json" for run in runs))
    names = ("model.safetensors", "ranks.parquet", "metrics.json")
    files = [f"results/{run}/{name}" for run in runs for name in names]
    files += [f"data/toy/{name}" for name in ("interactions.parquet", "embeddings.safetensors", "codes.parquet")]
    for file in files:
        assert (project.folder / file).read_bytes() == (finished.folder / file).read_bytes(), file


def test_checkouts_share_what_is_slow_to_make(finished: Project, tmp_path: Path):
    (tmp_path / "cache").mkdir()
    files = ["data/toy/embeddings.safetensors", "data/toy/codes.parquet"]
    printed = []
    for name in ("one", "two"):
        project = Project(tmp_path / name, {"SNAKEMAKE_OUTPUT_CACHE": str(tmp_path / "cache")})
        shutil.copytree(finished.folder, project.folder, symlinks=True)
        for file in files:
            (project.folder / file).unlink()
        printed.append(project.snakemake("--cache", "--", *files))
        for file in files:
            assert (project.folder / file).read_bytes() == (finished.folder / file).read_bytes()
    assert all(f"Moving output file {file} to cache" in printed[0] for file in files)
    assert all(f"Symlinking output file {file} from cache" in printed[1] for file in files)
    assert "Moving output file" not in printed[1]


def test_any_run_is_a_target(project: Project):
    target = "results/toy/llama/apao-pointwise+beta=0.4+epochs=1/seed7/metrics.json"
    project.snakemake(target)
    metrics = json.loads((project.folder / target).read_text())
    assert metrics["run"] == "toy/llama/apao-pointwise+beta=0.4+epochs=1/seed7"
    assert len(pd.read_csv(project.folder / target.replace("metrics.json", "history.csv"))) == 1


def test_runs_that_start_from_another_share_it_and_follow_it(project: Project):
    """``ce`` is finished: one that starts from it trains alone. What changes ``ce`` changes both."""
    later = [f"results/toy/tiger/{name}+epochs=1/seed42/metrics.json" for name in ("s-dpo", "ce->point")]
    assert jobs(project.snakemake("-n", *later))["train_run"] == 2
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


LONG = "toy/tiger/ce+epochs=9999+patience=9999/seed42"


def training(project: Project, run: str) -> subprocess.Popen[str]:
    """A workflow in a session of its own, as a terminal starts it, with a training past its first epoch."""
    # A shell that started the tests in the background has them, and all that they start, ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [BIN / "snakemake", "--cores", "1", f"results/{run}/metrics.json"],
        cwd=project.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
    )
    signal.signal(signal.SIGINT, before)
    deadline = time.monotonic() + 300
    while not (project.folder / "results" / run / "checkpoint.safetensors").exists():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process


def test_killed_workflow_continues(project: Project):
    run = "toy/tiger/ce+epochs=60+patience=60/seed42"
    process = training(project, run)
    # Snakemake first, so that it sees nothing of the end of its shell and of the training.
    parent = psutil.Process(process.pid)
    for one in [parent, *parent.children(recursive=True)]:
        one.kill()
    process.wait()
    folder = project.folder / "results" / run
    assert not (folder / "metrics.json").exists()
    printed = project.snakemake(f"results/{run}/metrics.json")
    assert "train_run" in printed
    assert len(pd.read_csv(folder / "history.csv")) == 60
    assert not (folder / "checkpoint.safetensors").exists()


def test_interrupted_workflow_leaves_no_lock(project: Project):
    process = training(project, LONG)
    # Another one in the same checkout says why it cannot start, and disturbs nothing.
    printed = project.snakemake(f"results/{LONG}/metrics.json", code=1)
    assert f"another workflow, or a job it left, is at work here (Snakemake process {process.pid})" in printed
    assert "Directory cannot be locked" in printed
    assert "Traceback" not in printed
    assert process.poll() is None
    # A terminal's Ctrl-C goes to all that it started.
    os.killpg(process.pid, signal.SIGINT)
    printed, _ = process.communicate(timeout=120)
    assert "the same command goes on" in printed
    assert "Traceback" not in printed
    project.snakemake("results/toy/tiger/ce+epochs=1/seed42/metrics.json")


def test_paper_scale_lists_every_run(tmp_path: Path):
    """Four datasets, the paper's sizes and seeds: every run of Table 1 and Figures 2 to 5."""
    (tmp_path / "workflow").symlink_to(ROOT / "workflow")
    shutil.copy(ROOT / "params.yaml", tmp_path)
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
    assert short.study.chosen().keys() == full.study.chosen().keys()
    assert yaml.safe_load(path.read_text())["recipes"]["small"]["training"]["epochs"] == 1
