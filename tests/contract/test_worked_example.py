"""CONTRIBUTING's objective, added as it says: one new file, one entry in params.yaml, and nothing else."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECTION = re.search(r"## Add an objective\n(.*?)\n## ", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)[1]
(CODE,) = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)
(ENTRY,) = re.findall(r"```yaml\nobjectives:\n(.*?)```", SECTION, re.DOTALL)
(NAME,) = re.findall(r'type: Literal\["(.*?)"\]', CODE)


@pytest.fixture
def project(tmp_path):
    """A copy of the project with the example in it."""
    for folder in ("src/apao", "tests/contract"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("tiny.py", "conftest.py"):
        shutil.copy(ROOT / "tests" / name, tmp_path / "tests")
    (tmp_path / "src/apao/objectives" / f"{NAME.replace('-', '_')}.py").write_text(CODE)
    params = (ROOT / "params.yaml").read_text()
    assert params.count("\nobjectives:\n") == 1
    (tmp_path / "params.yaml").write_text(params.replace("\nobjectives:\n", f"\nobjectives:\n{ENTRY}"))
    return tmp_path


def run(project, *command):
    environment = {"PYTHONPATH": f"{project / 'src'}:{project / 'tests'}", "PATH": str(Path(sys.executable).parent)}
    return subprocess.run(
        [sys.executable, *command], cwd=project, env=environment, capture_output=True, text=True, check=False
    )


def test_the_example_is_a_run_like_any_other(project):
    found = run(project, "-m", "apao.cli", "params", "check")
    assert found.returncode == 0, found.stderr
    found = run(project, "-m", "apao.cli", "train", f"ml-100k/tiger/{NAME}+epsilon=0.2/seed1")
    # The name and its parameter are known; only the data is not there.
    assert found.returncode == 1 and "interactions.parquet" in found.stderr, found.stderr


def test_the_contract_suite_finds_it(project):
    found = run(
        project,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "tests/contract/test_objective_contract.py",
        "-k",
        f"[{NAME}]",
    )
    assert found.returncode == 0, found.stdout
    assert re.search(r"\d+ passed", found.stdout) and "failed" not in found.stdout
