"""Resources that jobs request from a cluster; tests/workflow/test_slurm.py runs the study on one."""

import os
import re
import shutil
from pathlib import Path

import pytest
import yaml
from helpers.project import ROOT, SHIPPED

from apao.engines import snakemake
from apao.engines.snakemake import Workflow
from apao.study.params import load
from apao.study.tuned import Tuning, add_tunings

PARAMS = str(SHIPPED)
NO_CODE = {"download", "link", "published"}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Undo what a workflow does for its jobs: environment variables and the copy of params.yaml."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", dict(os.environ))


@pytest.mark.parametrize("here", [False, True])
def test_a_login_node_says_what_its_cluster_has(here: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(snakemake, "has_gpu", lambda: here)
    assert Workflow({"params": PARAMS}, spawned=False).gpus == here
    assert Workflow({"params": PARAMS, "gpus": 1}, spawned=False).gpus == 1
    assert Workflow({"params": PARAMS, "gpus": 0}, spawned=False).gpus == 0


@pytest.mark.parametrize("value", [2, -1, "yes", 0.5])
def test_other_numbers_are_one_clear_line(value: object, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        Workflow({"params": PARAMS, "gpus": value}, spawned=False)
    assert capsys.readouterr().err == f"error: --config gpus={value}: a job computes on one device; give 0 (CPU) or 1\n"


def test_jobs_are_given_a_copy_of_params_yaml(tmp_path: Path):
    path = tmp_path / "params.yaml"
    path.write_text(Path(PARAMS).read_text())
    Workflow({})
    named = Path(os.environ["APAO_PARAMS"])
    assert named != path
    assert load(named).model_dump() == load(path).model_dump()
    # A Snakemake process for a job reads the copy; the next workflow reads the file and makes its own copy.
    path.write_text(path.read_text().replace("scale: small", "scale: switches"))
    assert Workflow({}, spawned=True).params.scale == "small"
    assert os.environ["APAO_PARAMS"] == str(named)
    del os.environ["APAO_PARAMS"], os.environ["APAO_SCALE"]
    assert Workflow({}).params.scale == "switches"
    assert os.environ["APAO_PARAMS"] != str(named)


def test_the_environment_counts_as_for_the_command_line(tmp_path: Path):
    (tmp_path / "other.yaml").write_text(SHIPPED.read_text().replace("scale: small", "scale: switches"))
    os.environ["APAO_PARAMS"] = "other.yaml"
    assert Workflow({}).params.scale == "switches"
    os.environ |= {"APAO_PARAMS": PARAMS, "APAO_SCALE": "paper"}
    assert Workflow({}).params.scale == "paper"
    # A Snakemake process for a job has the same environment.
    assert Workflow({}, spawned=True).params.scale == "paper"
    assert Workflow({"params": "other.yaml", "scale": "small"}).params.scale == "small"


def test_the_profile_names_rules_that_exist():
    """Snakemake silently accepts resources of a misspelt rule."""
    profile = yaml.safe_load((ROOT / "workflow/profiles/slurm/profile.yaml").read_text())
    rules = "\n".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    known = set(re.findall(r"^(?:use rule \w+ as|rule) (\w+)", rules, flags=re.MULTILINE))
    assert {*profile["set-resources"], *profile["set-threads"]} <= known
    # A job with all cores of one machine may fit no node.
    bodies = re.split(r"^(?:use rule \w+ as|rule) (?=\w)", rules, flags=re.MULTILINE)
    greedy = {re.match(r"\w+", body)[0] for body in bodies if "workflow.cores" in body}
    assert profile["set-threads"].keys() == greedy


def test_every_rule_that_computes_has_the_version_of_its_code():
    """Without it, changed code would leave old results in place."""
    rules = "\n".join(path.read_text() for path in sorted((ROOT / "workflow/rules").glob("*.smk")))
    bodies = re.split(r"^(?:use rule \w+ as|rule) (?=\w)", rules, flags=re.MULTILINE)[1:]
    versions = {re.match(r"\w+", body)[0]: re.findall(r'code=PIPELINE\.code\("(\w+)"\)', body) for body in bodies}
    coded = {name for name, found in versions.items() if found}
    assert {"preprocess", "embed", "codes", "baselines", "train", "evaluate", "beams", "exact"} <= coded
    assert all(found == [name] for name, found in versions.items() if found)
    # These copy what the user or a publisher has, or take the version with the study's parameters.
    assert versions.keys() - coded <= NO_CODE


def test_a_study_is_drawn_again_when_what_was_tuned_changes(tmp_path: Path):
    shutil.copy(SHIPPED, tmp_path / "params.yaml")
    shutil.copy(SHIPPED.with_name("tuned.yaml"), tmp_path / "tuned.yaml")
    before = {name: Workflow({}).study(name) for name in ("table1", "figure5")}
    (objective,) = {"ce"} & load(tmp_path / "params.yaml").objectives.keys()
    del os.environ["APAO_PARAMS"], os.environ["APAO_SCALE"]
    add_tunings(tmp_path / "tuned.yaml", [(objective, Tuning(chosen_by="me", values={"ml-100k": {"lr": 0.5}}))])
    assert all(Workflow({}).study(name) != text for name, text in before.items())


def test_the_profile_keeps_what_the_default_one_says():
    default, slurm = (
        yaml.safe_load((ROOT / f"workflow/profiles/{name}/profile.yaml").read_text()) for name in ("default", "slurm")
    )
    # One machine has one GPU.
    assert default.pop("resources") == ["gpu=1"]
    assert default.items() <= slurm.items()


@pytest.mark.parametrize("mirror", [None, "elsewhere"])
def test_nothing_that_comes_from_a_mirror_is_shared(mirror, monkeypatch):
    """A mirror may hold other files than those that another checkout would fetch, and the cache looks at no content."""
    monkeypatch.setenv("SNAKEMAKE_OUTPUT_CACHE", "cache")
    monkeypatch.delenv("APAO_MIRROR", raising=False)
    workflow = Workflow({"params": PARAMS, **({"mirror": mirror} if mirror else {})})
    assert workflow.shares == (mirror is None)
