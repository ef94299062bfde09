"""CONTRIBUTING's examples, added as it says: one new file, one entry in params.yaml, and nothing else."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Example:
    """A section of CONTRIBUTING.md: the file it adds to ``package``, and the entry in a section of params.yaml."""

    kind: str
    package: str
    section: str
    tag: str

    def _quoted(self, pattern: str) -> str:
        contributing = (ROOT / "CONTRIBUTING.md").read_text()
        text = re.search(rf"## Add an? {self.kind}\n(.*?)\n## ", contributing, re.DOTALL)[1]
        (found,) = re.findall(pattern, text, re.DOTALL)
        return found

    @property
    def code(self) -> str:
        return self._quoted(r"```python\n(.*?)```")

    @property
    def entry(self) -> str:
        return self._quoted(rf"```yaml\n{self.section}:\n(.*?)```")

    @property
    def name(self) -> str:
        return self._quoted(rf'{self.tag}: Literal\["(.*?)"\]')


OBJECTIVE = Example("objective", "objectives", "objectives", "type")
TOKENIZER = Example("tokenizer", "codes/tokenizers", "codes", "method")


@pytest.fixture
def project(tmp_path):
    """A copy of the project with the examples in it."""
    for folder in ("src/apao", "tests/contract"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("tiny.py", "conftest.py"):
        shutil.copy(ROOT / "tests" / name, tmp_path / "tests")
    params = (ROOT / "params.yaml").read_text()
    for example in (OBJECTIVE, TOKENIZER):
        module = example.name.replace("-", "_")
        (tmp_path / "src/apao" / example.package / f"{module}.py").write_text(example.code)
        assert params.count(f"\n{example.section}:\n") == 1
        params = params.replace(f"\n{example.section}:\n", f"\n{example.section}:\n{example.entry}")
    (tmp_path / "params.yaml").write_text(params)
    return tmp_path


def run(project, *command):
    environment = {"PYTHONPATH": f"{project / 'src'}:{project / 'tests'}", "PATH": str(Path(sys.executable).parent)}
    return subprocess.run(
        [sys.executable, *command], cwd=project, env=environment, capture_output=True, text=True, check=False
    )


def test_the_objective_is_a_run_like_any_other(project):
    found = run(project, "-m", "apao.cli", "params", "check")
    assert found.returncode == 0, found.stderr
    found = run(project, "-m", "apao.cli", "train", f"ml-100k/tiger/{OBJECTIVE.name}+epsilon=0.2/seed1")
    # The name and its parameter are known; only the data is not there.
    assert found.returncode == 1 and "interactions.parquet" in found.stderr, found.stderr


def test_the_tokenizer_makes_codes_like_any_other(project):
    """Sixty items, the last ten with the embeddings of the first ten."""
    params, entry = project / "params.yaml", TOKENIZER.entry.partition(":")[0].strip()
    params.write_text(params.read_text().replace("codes: minilm-3x64", f"codes: {entry}"))
    folder = project / "data/ml-100k"
    folder.mkdir(parents=True)
    items = pd.DataFrame({"item": range(60), "raw_id": [f"i{item}" for item in range(60)], "text": "a"})
    items.to_parquet(folder / "items.parquet")
    rows = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    save_file({"embeddings": np.concatenate([rows, rows[:10]])}, folder / "embeddings.safetensors")
    found = run(project, "-m", "apao.cli", "codes", "ml-100k")
    assert found.returncode == 0 and "60 items on 60 distinct codes of 4 levels" in found.stderr, found.stderr
    codes = pd.read_parquet(folder / "codes.parquet").set_index("item")
    assert list(codes) == [f"level_{level}" for level in range(1, 5)] and (codes["level_4"][50:] > 0).all()
    assert json.loads((folder / "code_quality.json").read_text())["items_moved"] == (codes["level_4"] > 0).sum()


@pytest.mark.parametrize("example", [OBJECTIVE, TOKENIZER], ids=lambda example: example.kind)
def test_the_contract_suite_finds_it(project, example):
    suite = f"tests/contract/test_{example.kind}_contract.py"
    found = run(project, "-m", "pytest", "-q", "-p", "no:cacheprovider", suite, "-k", example.name)
    assert found.returncode == 0, found.stdout
    assert re.search(r"\d+ passed", found.stdout) and "failed" not in found.stdout
