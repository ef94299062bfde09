"""The built package in an environment of its own: the command, its defaults, and a study folder that runs."""

import json
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import yaml
from helpers.processes import environment
from helpers.project import ITEMS, ROOT, Project, merged, small_params, write_interactions, write_params

pytestmark = pytest.mark.slow

SOURCES = ("src", "workflow", "pyproject.toml", "README.md", "LICENSE", "params.yaml", "tuned.yaml")
SHIPPED = ("params.yaml", "tuned.yaml", "workflow")


def done(*arguments: str | Path) -> None:
    """Run Python to its end, with no other folder of modules: pip would find apao installed there."""
    subprocess.run([sys.executable, *arguments], env=environment(PYTHONPATH=""), check=True, capture_output=True)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` folder of an environment with the wheel; its dependencies are those of this environment."""
    base = tmp_path_factory.mktemp("wheel")
    # A build leaves files beside the sources.
    copy, place = base / "sources", base / "environment"
    copy.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", ".snakemake")
            shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=ignored)
        else:
            shutil.copy(ROOT / name, copy / name)
    offline = ("--no-deps", "--no-index")
    done("-m", "pip", "wheel", *offline, "--no-build-isolation", "--wheel-dir", base, copy)
    (wheel,) = base.glob("*.whl")
    done("-m", "venv", "--without-pip", place)
    python = place / "bin" / "python"
    done("-m", "pip", "--python", python, "install", *offline, wheel)
    shutil.rmtree(copy)
    # Only this line: the file that points to the checkout is not read in a folder added so.
    (packages,) = place.glob("lib/*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python.parent


@pytest.fixture(scope="module")
def made(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A folder made by ``apao init`` of the wheel, in which commands are those of the wheel."""
    project = Project(tmp_path_factory.mktemp("studies"), {"PATH": f"{installed}:/usr/bin:/bin", "PYTHONPATH": ""})
    assert "study/dvc.yaml" in project.run("apao", "init", "study")
    return Project(project.folder / "study", project.environment)


def test_the_folder_has_the_defaults_of_the_repository(made: Project):
    for name in SHIPPED:
        subprocess.run(["diff", "--recursive", "--exclude=.*", ROOT / name, made.folder / name], check=True)
    text = (made.folder / "README.md").read_text()
    assert "$" not in text
    assert "apao recommend" in text


def test_both_engines_plan_its_studies(made: Project):
    assert "params.yaml: valid; scale small" in made.run("apao", "params", "check")
    # Lines of the table of jobs: rule and number.
    planned = made.run("python", "-m", "snakemake", "--dry-run", "all")
    counts = dict(line.split() for line in planned.splitlines() if len(line.split()) == 2)
    here, there = (yaml.safe_load((folder / "dvc.yaml").read_text())["stages"] for folder in (ROOT, made.folder))
    assert there.keys() == here.keys()
    trained = [run for name, stage in there.items() if name.startswith("train-") for run in stage["matrix"]["run"]]
    assert counts["train"] == counts["evaluate"] == str(len(trained))


def test_a_run_is_trained_and_recommends(made: Project, tmp_path: Path):
    study = Project(tmp_path / "study", made.environment)
    shutil.copytree(made.folder, study.folder)
    write_interactions(study.folder / "toy.csv")
    codes = {f"i{item}": [f"<a_{item % 3}>", f"<b_{item}>"] for item in range(ITEMS)}
    (study.folder / "codes.json").write_text(json.dumps(codes))
    own = {name: small_params()[name] for name in ("datasets", "recipes")}
    given = {"codes": {"toy": {"method": "file", "path": "codes.json"}}}
    write_params(study.folder, merged(merged(study.params(), own), given))

    study.run("python", "-m", "snakemake", "--cores", "2", "results/toy/tiger/ce/seed1/metrics.json")
    assert json.loads((study.folder / "results/toy/tiger/ce/seed1/metrics.json").read_text())["test"]
    listed = study.run("apao", "recommend", "toy/tiger/ce/seed1", "--user", "u3", "-k", "2", "--format", "json")
    assert len(json.loads(listed.splitlines()[-1])["items"]) == 2
