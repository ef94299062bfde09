"""Comparison of all numbers of the short study between another revision and this checkout.

    APAO_SAME_AS=REVISION pytest tests/workflow/test_same_numbers.py

Each revision runs its own params.yaml, so sections of that file may have moved between them.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.content import content
from helpers.project import ROOT

REVISION = os.environ.get("APAO_SAME_AS")
COMPARED = ("run.json", "metrics.json", "ranks.parquet", "history.csv", "model.safetensors", "interactions.parquet")
COMPARED += ("items.parquet", "embeddings.safetensors", "codes.parquet", "codebooks.safetensors", "pruning.json")
TIMED = ("table4.csv", "figure1.csv", "figure4.csv")
"""Files with times, which are not compared."""


def study_of(folder: Path) -> dict[str, object]:
    """Files of the short study, made by the code in ``folder``."""
    environment = {**os.environ, "PYTHONPATH": str(folder / "src"), "OMP_NUM_THREADS": "1"}
    short = subprocess.run(
        [sys.executable, "tests/workflow/shorten.py", "params.yaml"],
        cwd=folder,
        env={**environment, "PYTHONPATH": f"{folder / 'src'}:{folder / 'tests'}"},
        capture_output=True,
        text=True,
        check=True,
    )
    (folder / "short.yaml").write_text(short.stdout)
    snakemake = Path(sys.executable).parent / "snakemake"
    command = [snakemake, "--cores", "2", "--config", "params=short.yaml", "--", "all"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    kept = content(folder)
    return {
        name: kept[name]
        for name in kept
        if Path(name).name in COMPARED or (Path(name).suffix == ".csv" and Path(name).name not in TIMED)
    }


def checkout(revision: str, folder: Path) -> Path:
    """A checkout of a revision, without its git history."""
    folder.mkdir()
    archive = subprocess.run(["git", "archive", revision], cwd=ROOT, capture_output=True, check=True)
    subprocess.run(["tar", "-x"], cwd=folder, input=archive.stdout, check=True)
    return folder


@pytest.mark.slow
@pytest.mark.skipif(REVISION is None, reason="APAO_SAME_AS names no revision to compare with")
def test_every_number_is_that_of_the_other_revision(tmp_path):
    before = study_of(checkout(REVISION, tmp_path / "before"))
    after = study_of(checkout("HEAD", tmp_path / "after"))
    assert len([name for name in before if name.endswith("metrics.json")]) > 10
    assert set(before) <= set(after), sorted(set(before) - set(after))
    assert not [name for name in before if before[name] != after[name]]
