"""dvc.yaml and the Snakefile have the same graph and accept each other's finished files."""

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from dvc_project import commit, committed, ran
from helpers.project import ROOT, Project, make_workflow

from apao.engines.dvc import CHECKED, CODE, COPY, pipeline_text
from apao.study.params import load

pytestmark = pytest.mark.slow


def test_the_shipped_pipeline_is_that_of_params_yaml(monkeypatch: pytest.MonkeyPatch):
    # With the paths that `apao dvc` writes in the project's folder.
    monkeypatch.chdir(ROOT)
    assert (ROOT / "dvc.yaml").read_text() == pipeline_text(load(ROOT / "params.yaml")), (
        "dvc.yaml does not match params.yaml; regenerate it: apao dvc"
    )


Jobs = dict[str, tuple[frozenset[str], frozenset[str]]]


def snakemake_jobs(project: Project) -> Jobs:
    """Command (without its parameters) to (inputs, outputs) of every job of ``snakemake all``."""
    jobs = project.snakemake("-n", "-F", "all").jobs
    return {
        re.split(r" --resolved | > ", job.command)[0].replace("'", ""): (job.inputs, job.outputs)
        for job in jobs
        if job.rule != "all"
    }


def dvc_jobs(project: Project) -> Jobs:
    """The same for DVC's stages, as expanded by DVC, without the copy of params.yaml that all read."""
    from dvc.repo import Repo

    with Repo(str(project.folder)) as repo:
        return {
            stage.cmd.replace("'", "").replace(f" --params {COPY}", ""): (
                frozenset(dep.def_path for dep in stage.deps if not hasattr(dep, "params")),
                frozenset(out.def_path for out in stage.outs),
            )
            for stage in repo.index.stages
        }


CHANGES = {
    "as it is": [],
    "runs that start from others and read embeddings": [
        (("studies", "small", "table3", "two_stage"), ["s-dpo", "ce->point+epochs=1"]),
        (("studies", "small", "table1", "objectives"), ["ce", "front-greater"]),
    ],
    "vectors and codes of the user": [
        (("embedders", "mine"), {"file": "vectors.npy", "ids": "ids.txt"}),
        (("codes", "mine"), {"method": "file", "path": "codes.json", "embedder": "mine"}),
        (("datasets", "toy", "codes"), "mine"),
        (("studies", "small", "table1", "objectives"), ["ce", "front-greater"]),
    ],
    "two seeds and a sweep": [
        (("studies", "small", "table1", "seeds"), [1, 2]),
        (("sweeps", "beta", "values"), [0.1, 0.2, 0.3]),
    ],
}


@pytest.mark.parametrize("change", CHANGES)
def test_both_have_the_same_jobs(tmp_path: Path, change: str):
    project = make_workflow(tmp_path)
    for name in ("vectors.npy", "ids.txt", "codes.json"):
        (project.folder / name).touch()
    for keys, value in CHANGES[change]:
        project.edit(*keys, value=value)
    expected, found = snakemake_jobs(project), dvc_jobs(committed(project))
    runs = load(project.folder / "params.yaml").all_runs()
    assert {f"apao train {run}" for run in runs} == {each for each in expected if each.startswith("apao train ")}
    assert found.pop("apao dvc --check") == ({"params.yaml"}, {str(CHECKED), str(COPY), str(CODE)})
    assert found.keys() == expected.keys()
    if change.startswith("vectors"):
        assert {"vectors.npy", "ids.txt"} < expected["apao embed toy"][0]
        assert "codes.json" in expected["apao codes toy"][0]
    for command, (inputs, outputs) in expected.items():
        dvc_inputs, dvc_outputs = found[command]
        assert inputs == dvc_inputs - {str(CHECKED)}, command
        # DVC also keeps the records, and no folder of links.
        assert without_records(outputs) - {"data/toy/raw"} == without_records(dvc_outputs), command


def without_records(paths: frozenset[str]) -> set[str]:
    return {path for path in paths if not path.endswith(".provenance.json")}


@pytest.fixture(scope="module")
def recorded(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The study that Snakemake made, recorded by DVC without running anything."""
    folder = tmp_path_factory.mktemp("recorded") / "study"
    project = Project(Path(shutil.copytree(finished.folder, folder, symlinks=True)))
    project.take_code()
    committed(project)
    project.run("apao", "dvc", "--check")
    project.run("dvc", "commit", "--force", "-q")
    return project


@pytest.fixture
def taken_over(recorded: Project, tmp_path: Path) -> Project:
    """A copy of it that a test may change."""
    return Project(Path(shutil.copytree(recorded.folder, tmp_path / "study", symlinks=True)))


def test_dvc_takes_over_what_snakemake_made_and_reruns_what_beta_changes(taken_over: Project):
    assert ran(taken_over.run("dvc", "repro")) == []
    assert "up to date" in taken_over.run("dvc", "status")
    taken_over.edit("objectives", "apao-pairwise", "beta", value=0.7)
    stages = ran(taken_over.run("dvc", "repro"))
    runs = ["toy/tiger/apao-pairwise/seed42", "toy/tiger/apao-pairwise+drop_level=0/seed42"]
    trained = [stage.partition("@")[2] for stage in stages if stage.startswith("train")]
    assert sorted(trained) == sorted(runs)
    params = taken_over.params()
    studies = params["studies"][params["scale"]]
    reports = {f"report_{name}" for name, study in studies.items() if "apao-pairwise" in json.dumps(study)}
    assert "report_figure2" in reports and "report_table2" not in reports
    assert {stage for stage in stages if "toy-tiger-apao-pairwise" not in stage} == {"check_pipeline", *reports}
    # And back: Snakemake marks the files from DVC as up to date.
    taken_over.snakemake("--touch", "all")
    assert taken_over.snakemake("all").jobs == []
    assert ran(taken_over.run("dvc", "repro")) == []


def test_an_edit_while_dvc_runs_counts_for_the_next_time(taken_over: Project):
    taken_over.edit("objectives", "apao-pairwise", "beta", value=0.7)
    process = taken_over.start("dvc", "repro", "evaluate-toy-tiger-apao-pairwise")
    # The command has just been started and reads its parameters seconds later.
    process.wait_for(lambda: "Running stage 'train-toy-tiger-apao-pairwise@" in process.printed())
    taken_over.edit("objectives", "apao-pairwise", "beta", value=0.9)
    done = process.end()
    assert done.status == 0, done.output
    runs = ["toy/tiger/apao-pairwise/seed42", "toy/tiger/apao-pairwise+drop_level=0/seed42"]
    stages = {f"train-toy-tiger-apao-pairwise@{run}" for run in runs}
    assert stages <= set(ran(done.output))
    for run in runs:
        assert json.loads((taken_over.folder / "results" / run / "run.json").read_text())["objective"]["beta"] == 0.7
    lock = yaml.safe_load((taken_over.folder / "dvc.lock").read_text())["stages"]
    for stage in stages:
        assert lock[stage]["params"][str(COPY)]["objectives.apao-pairwise"]["beta"] == 0.7
    assert stages <= changed(taken_over)


def test_what_dvc_makes_is_what_snakemake_makes(taken_over: Project, finished: Project):
    run = "toy/llama/ce/seed42"
    for stage in ("train", "evaluate"):
        taken_over.run("dvc", "repro", "--force", "--single-item", f"{stage}-toy-llama-ce@{run}")
    for file in ("model.safetensors", "ranks.parquet", "metrics.json"):
        made, expected = (project.folder / "results" / run / file for project in (taken_over, finished))
        assert made.read_bytes() == expected.read_bytes(), file
        assert made.stat().st_mtime_ns != expected.stat().st_mtime_ns, file


def changed(project: Project) -> set[str]:
    """Stages that DVC would run because of a change in themselves, not because of other stages."""
    project.run("dvc", "repro", "check_pipeline")
    return set(json.loads(project.run("dvc", "status", "--json")))


def test_code_counts_and_comments_do_not(taken_over: Project):
    taken_over.replace("training/loop.py", '"""The training loop of one run', '"""How one run is trained')
    assert changed(taken_over) == set()
    taken_over.replace("objectives/apao.py", "import torch\n", "import torch\n\nNEW = 1\n")
    runs = {str(run) for run in load(taken_over.folder / "params.yaml").all_runs()}
    stages = [stage.partition("@") for stage in changed(taken_over)]
    # An objective decides how its runs are trained, and whether eos and which softmax are decoded.
    assert all(name.startswith(("train-toy-", "evaluate-toy-", "exact-toy-", "beams-toy-")) for name, _, _ in stages)
    assert {run for _, _, run in stages} == {run for run in runs if "/apao-" in run}
    assert {run for name, _, run in stages if name.startswith("train-toy-")} == {run for _, _, run in stages}


def test_a_pipeline_of_other_parameters_is_one_clear_line(taken_over: Project):
    taken_over.edit("studies", "small", "table1", "seeds", value=[1])
    printed = taken_over.run("dvc", "repro", code=255)
    assert "generate it again: apao dvc" in printed
    assert ran(printed) == ["check_pipeline"]
    assert "Traceback" not in printed


def test_a_pulled_study_is_finished(taken_over: Project, tmp_path: Path):
    taken_over.run("dvc", "remote", "add", "-d", "store", str(tmp_path / "store"))
    taken_over.run("dvc", "push", "-q")
    commit(taken_over)
    taken_over.run("git", "clone", "-q", ".", str(tmp_path / "clone"))
    clone = Project(tmp_path / "clone")
    clone.run("dvc", "pull", "-q")
    assert ran(clone.run("dvc", "repro")) == []
    metrics = yaml.safe_load(clone.run("dvc", "metrics", "show", "--json"))
    assert any("recall@10" in str(value) for value in metrics.values())
