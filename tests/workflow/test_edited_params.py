"""params.yaml edited while a workflow runs: the parameters resolved at the start are used and recorded."""

import json
import shutil
from pathlib import Path

import pytest
from helpers.project import Project, make_workflow

pytestmark = pytest.mark.slow

RUN = "results/toy/tiger/ce/seed42"
FILES = ("run.json", "model.safetensors", "ranks.parquet", "metrics.json")
EDIT = "sed -i -e 's/lr: 0.01/lr: 0.5/' -e 's/beam: all/beam: 20/' -e 's/core: 3/core: 5/' params.yaml"


def job_edits(project: Project, rules: str, stage: str) -> None:
    """Make the job of a stage edit params.yaml before its work."""
    path = project.folder / "workflow/rules" / rules
    text = path.read_text()
    assert text.count(f'"apao {stage} ') == 1
    path.write_text(text.replace(f'"apao {stage} ', f'"{EDIT}; apao {stage} '))


def edited(project: Project) -> bool:
    """Whether the edit is in params.yaml."""
    tiny = project.params()["recipes"]["tiny"]
    assert (tiny["training"]["lr"], tiny["decoding"]["beam"]) in ((0.01, "all"), (0.5, 20))
    return tiny["training"]["lr"] == 0.5


@pytest.mark.parametrize("spawned", [False, True], ids=["one process", "a process per job"])
def test_a_run_is_what_was_resolved_at_the_start(project: Project, finished: Project, spawned: bool):
    shutil.rmtree(project.folder / RUN)
    (project.folder / "data/toy/codes.parquet").unlink()
    job_edits(project, "codes.smk", "codes")
    if spawned:
        # As on a cluster, Snakemake starts a second Snakemake for such a job, which reads the rules again.
        rule = project.folder / "workflow/rules/train.smk"
        text = rule.read_text()
        assert "    shell:" in text
        rule.write_text(text.replace("    shell:", '    shadow:\n        "minimal"\n    shell:'))
    target = f"{RUN}/metrics.json"
    assert {"codes", "train"} <= project.snakemake(target).rules.keys()
    assert edited(project)
    for name in FILES:
        assert (project.folder / RUN / name).read_bytes() == (finished.folder / RUN / name).read_bytes(), name
    assert json.loads((project.folder / RUN / "run.json").read_text())["training"]["lr"] == 0.01

    # The next workflow uses the edited file or, if the edit is undone, has nothing to do.
    assert {"preprocess", "train", "evaluate"} <= project.snakemake("-n", target).rules.keys()
    shutil.copy(finished.folder / "params.yaml", project.folder)
    assert project.snakemake("-n", target).jobs == []


def test_a_dataset_is_what_was_resolved_at_the_start(tmp_path: Path):
    project = make_workflow(tmp_path)
    job_edits(project, "data.smk", "download")
    stats = "data/toy/stats.json"
    project.snakemake(stats)
    assert edited(project)
    assert json.loads((tmp_path / stats).read_text())["core"] == 3
    assert project.snakemake("-n", stats).rules == {"preprocess": 1}
