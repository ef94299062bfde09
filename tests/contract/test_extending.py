"""The examples of docs/extending.md, executed: the page is applied to a copy of the project, then tested there."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "extending.md").read_text()
BLOCKS = re.findall(r'^```(\w+)(?: title="(.+?)")?\n(.*?)^```$', PAGE, re.DOTALL | re.MULTILINE)
FILES = {title: text for _, title, text in BLOCKS if title and title != "params.yaml"}
ENTRIES = [yaml.safe_load(text) for _, title, text in BLOCKS if title == "params.yaml"]
COMMANDS = [shlex.split(line)[1:] for language, _, text in BLOCKS if language == "sh" for line in text.splitlines()]
NAMES = re.findall(r'^    (?:type|source): Literal\["(.+?)"\]', "".join(FILES.values()), re.MULTILINE)
ALL_COMMANDS = """
import json, sys
from apao.cli import app
for arguments in json.load(sys.stdin):
    app(arguments, standalone_mode=False)
"""


def merged(here, there):
    """``there`` on top of ``here``, section by section."""
    if not (isinstance(here, dict) and isinstance(there, dict)):
        return there
    return here | {key: merged(here.get(key), value) for key, value in there.items()}


def write_reviews(path: Path) -> None:
    """Ratings of 30 users, for the page's dataset."""
    rows = [
        {"user": f"u{user}", "item": f"i{(user + k * k) % 25}", "time": k, "title": f"film {(user + k * k) % 25}"}
        for user in range(30)
        for k in range(8)
    ]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A copy of the project with all examples in it."""
    folder = tmp_path_factory.mktemp("extended")
    for name in ("src/apao", "tests/contract"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "tuned.yaml", "tests/tiny.py", "tests/conftest.py"):
        shutil.copy(ROOT / name, folder / name)
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for entry in ENTRIES:
        params = merged(params, entry)
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    write_reviews(folder / "reviews.jsonl")
    return folder


def run(project: Path, *arguments: str, stdin: str = "") -> str:
    """Python in the copy; what it printed."""
    environment = {"PYTHONPATH": "src:tests", "PATH": str(Path(sys.executable).parent)}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=project,
        env=environment,
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_every_name_of_the_examples_keeps_its_contract(project):
    """The contract tests find the new names by themselves; the examples' own tests pass."""
    own = [name for name in FILES if name.startswith("tests/")]
    contract = [f"tests/contract/test_{kind}_contract.py" for kind in ("source", "backbone", "objective")]
    selected = " or ".join([*(Path(name).stem for name in own), *(f"[{name}" for name in NAMES)])
    printed = run(project, "-m", "pytest", "-v", "-p", "no:cacheprovider", *own, *contract, "-k", selected)
    for name in [*own, *(f"[{name}" for name in NAMES)]:
        assert name in printed, f"no test of {name} was run"


def test_the_commands_run(project):
    """One after another, in one process."""
    run(project, "-c", ALL_COMMANDS, stdin=json.dumps([["params", "check"], *COMMANDS]))


def test_the_examples_are_formatted_and_linted(project):
    written = [name for name in FILES if name.endswith(".py")]
    run(project, "-m", "ruff", "format", "--check", *written)
    run(project, "-m", "ruff", "check", *written)
