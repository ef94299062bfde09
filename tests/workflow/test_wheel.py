"""The built package in an environment of its own: its defaults, a project folder, and the tutorial in one."""

import json
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from helpers.processes import environment, run
from helpers.project import ROOT, Project

pytestmark = pytest.mark.slow

SOURCES = ("src", "workflow", "pyproject.toml", "README.md", "LICENSE", "params.yaml", "tuned.yaml")
SHIPPED = ("params.yaml", "tuned.yaml", "workflow")
NOTEBOOK = ROOT / "docs/tutorial.ipynb"
DATA = "data"
"""Tag of the notebook's cells that make films.csv."""
USERS, ITEMS = 60, 90
"""Of the small table that stands for MovieLens-100K."""


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
    snakemake = python.with_name("snakemake")
    snakemake.write_text('#!/bin/sh\nexec python -m snakemake "$@"\n')
    snakemake.chmod(0o755)
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
    planned = made.run("snakemake", "--dry-run", "all")
    counts = dict(line.split() for line in planned.splitlines() if len(line.split()) == 2)
    here, there = (yaml.safe_load((folder / "dvc.yaml").read_text())["stages"] for folder in (ROOT, made.folder))
    assert there.keys() == here.keys()
    trained = [run for name, stage in there.items() if name.startswith("train-") for run in stage["matrix"]["run"]]
    assert counts["train"] == counts["evaluate"] == str(len(trained))


def cells() -> list[dict[str, Any]]:
    return [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]


def small_table() -> str:
    """A cell that writes films.csv: more films than clusters, so that the shipped codes fit."""
    random = np.random.default_rng(0)
    lines = ["user,item,timestamp,title,year,genres"]
    for user in range(USERS):
        for time, item in enumerate(random.permutation(ITEMS)[:15]):
            lines.append(f"u{user},f{item},{time},Film {item},{1900 + item},{'Comedy' if item % 2 else 'Drama'}")
    return f"Path('films.csv').write_text({chr(10).join(lines)!r})"


def test_no_output_is_committed():
    assert cells()
    for cell in cells():
        assert cell["outputs"] == [] and cell["execution_count"] is None


def test_the_tutorial_runs(installed: Path, tmp_path: Path):
    programs, made = list[str](), False
    for cell in cells():
        if DATA not in cell["metadata"].get("tags", ()):
            programs.append("".join(cell["source"]))
        elif not made:
            programs.append(small_table())
            made = True
    assert made
    programs.append("print(model.recommend([history], k=5).to_json(orient='records'))")
    program = tmp_path / "tutorial.py"
    program.write_text("\n".join(programs))
    ended = run(tmp_path, str(installed / "python"), str(program), TMPDIR=str(tmp_path), PYTHONPATH="")
    assert ended.status == 0, ended.output
    listed = json.loads(ended.output.splitlines()[-1])
    assert [row["rank"] for row in listed] == [1, 2, 3, 4, 5]
    assert "Recall@10" in ended.output
