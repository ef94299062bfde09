"""Files of the user: their content decides what is rerun, not their time; they are never moved or copied."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from dvc_project import committed, ran
from helpers.language_models import write_model
from helpers.project import Project, make_workflow, write_interactions

pytestmark = pytest.mark.slow

STATS = "data/toy/stats.json"
LINK = "data/toy/raw/interactions.table"


def age(path: Path) -> None:
    """Make a file older than everything that was made from it."""
    os.utime(path, (1_000_000_000, 1_000_000_000))


def replace_by_older(table: Path, seed: int) -> None:
    """Replace the table by another one with an older modification time."""
    other = table.with_suffix(".old")
    write_interactions(other, seed=seed)
    age(other)
    other.replace(table)


def test_an_older_table_is_noticed_by_snakemake_and_a_newer_time_is_not(tmp_path: Path):
    project = make_workflow(tmp_path)
    project.snakemake(STATS)
    assert project.snakemake(STATS).jobs == []
    first = (project.folder / "data/toy/interactions.parquet").read_bytes()

    replace_by_older(project.folder / "toy.csv", seed=1)
    found = project.snakemake(STATS)
    assert found.rules.keys() >= {"link", "preprocess"}
    # The summary is shown on the terminal and not only in the log.
    assert "rows       270 read, 270 kept" in found.output
    second = (project.folder / "data/toy/interactions.parquet").read_bytes()
    assert second != first

    (project.folder / "toy.csv").touch()
    assert project.snakemake(STATS).jobs == []

    replace_by_older(project.folder / "toy.csv", seed=0)
    project.snakemake(STATS)
    assert (project.folder / "data/toy/interactions.parquet").read_bytes() == first


def test_vectors_and_codes_count_by_their_content(tmp_path: Path):
    """One dataset has codes made from a user's vectors, another has a user's codes."""
    project = make_workflow(tmp_path)
    items = [f"i{n}" for n in range(12)]
    vectors, codes = project.folder / "vectors.npy", project.folder / "index.json"

    def write(seed: int) -> None:
        np.save(vectors, np.random.default_rng(seed).normal(size=(13, 4)).astype(np.float32))
        age(vectors)

    def assign(first: int) -> None:
        codes.write_text(json.dumps({item: [f"<a_{n % first}>", f"<b_{n}>"] for n, item in enumerate(items)}))
        age(codes)

    (project.folder / "ids.json").write_text(json.dumps([*items[::-1], "unknown"]))
    project.edit("embedders", "mine", value={"file": "vectors.npy", "ids": "ids.json"})
    project.edit("codes", "toy", "embedder", value="mine")
    project.edit("codes", "given", value={"method": "file", "path": "index.json"})
    project.edit("datasets", "given", value=project.params()["datasets"]["toy"] | {"codes": "given"})
    targets = ["data/toy/codes.parquet", "data/given/codes.parquet"]
    write(seed=0)
    assign(first=3)
    project.snakemake(*targets)
    made = pd.read_parquet(project.folder / targets[1])
    raw_ids = pd.read_parquet(project.folder / "data/given/items.parquet")["raw_id"]
    assert made["level_2"].tolist() == [int(raw.removeprefix("i")) for raw in raw_ids]
    log = (project.folder / "logs/toy/embed.log").read_text()
    assert "vectors.npy: 13 rows, of which 1 belong to no item (such as 'unknown')" in log

    for path in (vectors, codes):
        path.touch()
    assert project.snakemake("-n", *targets).jobs == []
    assign(first=4)
    assert project.snakemake("-n", *targets).rules == {"codes": 1}
    write(seed=1)
    assert project.snakemake("-n", *targets).rules == {"codes": 2, "embed": 1}


def test_an_older_pretrained_model_is_noticed_by_snakemake(tmp_path: Path):
    project = make_workflow(tmp_path)

    def write(**changes: object) -> None:
        for path in write_model(project.folder / "base", **changes).iterdir():
            age(path)

    project.edit("recipes", "tiny", "backbones", "mine", value={"type": "hf-causal", "model": "base"})
    target = "results/toy/mine/ce/seed42/model.safetensors"
    write()
    project.snakemake(target)
    assert project.snakemake("-n", target).jobs == []
    write(hidden_size=16)
    assert project.snakemake("-n", target).trained == {"toy/mine/ce/seed42"}


def test_a_missing_table_is_one_clear_line(tmp_path: Path):
    project = make_workflow(tmp_path)
    (project.folder / "toy.csv").unlink()
    printed = project.snakemake(STATS, code=1).output
    assert "toy.csv" in printed
    assert "Traceback" not in printed


def cached(project: Project) -> set[str]:
    """MD5 of everything in DVC's cache."""
    files = (project.folder / ".dvc/cache/files").rglob("*")
    return {hashlib.md5(path.read_bytes()).hexdigest() for path in files if path.is_file()}


@pytest.mark.parametrize("made_by", ["dvc", "snakemake"])
def test_dvc_keeps_the_link_and_no_copy(tmp_path: Path, made_by: str):
    project = committed(make_workflow(tmp_path))
    if made_by == "dvc":
        project.run("dvc", "repro", "preprocess-toy")
    else:
        project.snakemake(STATS)
        project.run("apao", "dvc", "--check")
    stages = ["check_pipeline", "download-toy", "preprocess-toy"]
    table, link = project.folder / "toy.csv", project.folder / LINK
    for seed in (None, 1, 0):
        if seed is not None:
            replace_by_older(table, seed)
            # Back to an earlier content: DVC must not use its cached hash without the link.
            assert "download-toy" in ran(project.run("dvc", "repro", "preprocess-toy"))
        project.run("dvc", "commit", "--force", "-q", *stages)
        assert link.is_symlink()
        assert link.resolve() == table.resolve()
        assert hashlib.md5(table.read_bytes()).hexdigest() not in cached(project)
        project.run("sh", "-c", "cd data/toy && sha256sum --check --quiet raw.sha256")
        project.run("apao", "intact")
    assert cached(project)  # of what was made
