"""The examples of docs/extending.md: the page is applied to a copy of the project, then tested there."""

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from helpers.processes import run
from helpers.project import ROOT, merged, write_params

PAGE = (ROOT / "docs" / "extending.md").read_text()
BLOCKS = re.findall(r'^```(\w+)(?: title="(.+?)")?\n(.*?)^```$', PAGE, re.DOTALL | re.MULTILINE)
FILES = {title: text for language, title, text in BLOCKS if language == "python" and title}
EDITS = [(title, text.splitlines()) for language, title, text in BLOCKS if language == "diff"]
ENTRIES = [yaml.safe_load(text) for _, title, text in BLOCKS if title == "params.yaml"]
COMMANDS = [shlex.split(line)[1:] for language, _, text in BLOCKS if language == "sh" for line in text.splitlines()]
NAMES = re.findall(r'^    (?:type|source|method|kind): Literal\["(.+?)"\]', "".join(FILES.values()), re.MULTILINE)
ALL_COMMANDS = """
import json, sys
from apao.cli import app
for arguments in json.loads(sys.argv[1]):
    app(arguments, standalone_mode=False)
"""


def edited(text, lines):
    """``text`` with the lines of a diff applied."""
    before, after = ("\n".join(line[1:] for line in lines if line[:1] != left) for left in "+-")
    assert text.count(before) == 1, before
    return text.replace(before, after)


def write_reviews(folder: Path) -> None:
    """Make the page's dataset, ratings of 30 users, with made-up embeddings in place of MiniLM's."""
    rows = [(f"u{user}", f"i{(user + k * k) % 25}", k) for user in range(30) for k in range(8)]
    lines = [json.dumps({"user": user, "item": item, "time": k, "title": item.upper()}) for user, item, k in rows]
    (folder / "reviews.jsonl").write_text("\n".join(lines))
    vectors = pd.DataFrame(np.random.default_rng(0).normal(size=(25, 8)), columns=list("abcdefgh"))
    vectors.assign(item=[f"i{i}" for i in range(25)]).to_parquet(folder / "vectors.parquet")


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A copy of the project with all examples in it."""
    folder = tmp_path_factory.mktemp("extended")
    for name in ("src/apao", "tests/contract", "tests/helpers"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "tuned.yaml", "tests/conftest.py"):
        shutil.copy(ROOT / name, folder / name)
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    for name, lines in EDITS:
        (folder / name).write_text(edited((ROOT / name).read_text(), lines))
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for entry in ENTRIES:
        params = merged(params, entry)
    params["embedders"]["minilm"] = {"file": "vectors.parquet"}
    write_params(folder, params)
    write_reviews(folder)
    return folder


def python(project: Path, *arguments: str) -> str:
    """Run Python in the copy; returns its output."""
    done = run(project, "python", *arguments, PYTHONPATH="src:tests")
    assert done.status == 0, done.output
    return done.output


def test_the_examples_pass_the_contract_tests(project):
    """The contract tests find the new names, and pass, as do the examples' own tests."""
    own = [name for name in FILES if name.startswith("tests/")]
    contract = [str(path.relative_to(project)) for path in project.glob("tests/contract/test_*_contract.py")]
    selected = " or ".join([*(Path(name).stem for name in own), *(f"[{name}" for name in NAMES)])
    printed = python(project, "-m", "pytest", "-v", "-p", "no:cacheprovider", *own, *contract, "-k", selected)
    for name in [*own, *(f"[{name}" for name in NAMES)]:
        assert name in printed, f"no test of {name} was run"


def test_the_commands_run(project):
    """All commands of the page run in order, in one process."""
    python(project, "-c", ALL_COMMANDS, json.dumps([["params", "check"], *COMMANDS]))


def test_the_examples_are_formatted_and_linted(project):
    written = [name for name in FILES if name.endswith(".py")]
    python(project, "-m", "ruff", "format", "--check", *written)
    python(project, "-m", "ruff", "check", *written)
