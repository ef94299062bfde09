"""CONTRIBUTING's objective, added as it says: one new file, one entry in params.yaml, and nothing else."""

import re
import shutil

import pytest
from helpers.processes import run
from helpers.project import ROOT

SECTION = re.search(r"## Add an objective\n(.*?)\n## ", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)[1]
(CODE,) = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)
(ENTRY,) = re.findall(r"```yaml\nobjectives:\n(.*?)```", SECTION, re.DOTALL)
(NAME,) = re.findall(r'type: Literal\["(.*?)"\]', CODE)


@pytest.fixture
def project(tmp_path):
    """A copy of the project with the example in it."""
    for folder in ("src/apao", "tests/contract", "tests/helpers"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "tests/conftest.py", tmp_path / "tests")
    (tmp_path / "src/apao/objectives" / f"{NAME.replace('-', '_')}.py").write_text(CODE)
    params = (ROOT / "params.yaml").read_text()
    assert params.count("\nobjectives:\n") == 1
    (tmp_path / "params.yaml").write_text(params.replace("\nobjectives:\n", f"\nobjectives:\n{ENTRY}"))
    return tmp_path


def python(project, *arguments):
    return run(project, "python", *arguments, PYTHONPATH=f"{project / 'src'}:{project / 'tests'}")


def test_the_example_is_a_run_like_any_other(project):
    found = python(project, "-m", "apao.cli", "train", f"ml-100k/tiger/{NAME}+epsilon=0.2/seed1")
    # The name and its parameter are known; only the data is not there.
    assert found.status == 1 and "interactions.parquet" in found.output, found.output


def test_the_contract_suite_finds_it(project):
    suite = "tests/contract/test_objective_contract.py"
    found = python(project, "-m", "pytest", "-q", "-p", "no:cacheprovider", suite, "-k", f"[{NAME}]")
    assert found.status == 0, found.output
    assert re.search(r"\d+ passed", found.output) and "failed" not in found.output
