"""A flipped bit or a truncated file of any kind: the next command that reads it names it in one line."""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from helpers.content import content
from helpers.forks import finish, run_forked
from study import LLAMA, STAGES, TIGER, Study

pytestmark = pytest.mark.faults

DATA, TIGER_RUN, LLAMA_RUN = Path("data", "toy"), Path("results", TIGER), Path("results", LLAMA)

READ_BY = {
    DATA / "raw/manifest.json": ["preprocess"],
    DATA / "raw.sha256": ["preprocess"],
    DATA / "raw/download.provenance.json": ["preprocess"],
    DATA / "raw/interactions.table": ["preprocess"],
    DATA / "interactions.parquet": ["baselines", "train tiger", "evaluate tiger", "exact", "beams"],
    DATA / "items.parquet": ["embed", "codes", "train tiger"],
    DATA / "stats.json": ["report table2"],
    DATA / "preprocess.provenance.json": ["embed", "train llama"],
    DATA / "embeddings.safetensors": ["codes"],
    DATA / "codes.parquet": ["baselines", "train tiger", "evaluate llama", "exact", "beams"],
    DATA / "codes.provenance.json": ["train tiger"],
    TIGER_RUN / "run.json": ["evaluate tiger", "exact", "beams", "report table1"],
    TIGER_RUN / "model.safetensors": ["evaluate tiger", "exact", "beams"],
    LLAMA_RUN / "model.safetensors": ["evaluate llama"],
    TIGER_RUN / "train.provenance.json": ["evaluate tiger"],
    TIGER_RUN / "history.csv": ["report table4"],
    TIGER_RUN / "metrics.json": ["report table1"],
    TIGER_RUN / "ranks.parquet": ["report table1"],
    TIGER_RUN / "pruning.json": ["report figure1"],
    TIGER_RUN / "beams.json": ["report figure4"],
    Path("results/toy/tiger/decoding_time.json"): ["report figure1"],
    Path("results/toy/baselines/metrics.json"): ["report table1"],
}
"""Every file that a stage reads, with a stage that reads it."""


def flip(content: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(content)
    damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))]


WAYS: dict[str, Callable[[bytes, random.Random], bytes]] = {"bit flipped": flip, "truncated": cut}


def matters(file: Path, damaged: bytes, whole: bytes) -> bool:
    """Whether the damage must be detected: in a record, changes of white space or of the key of its hash need not."""
    if damaged == whole or not file.name.endswith(".provenance.json"):
        return damaged != whole
    if len(damaged) != len(whole):
        return damaged.rstrip() != whole.rstrip()
    at = next(i for i, (old, new) in enumerate(zip(whole, damaged, strict=True)) if old != new)
    return at < whole.index(b'"digest"') and not whole[at : at + 1].isspace() and not damaged[at : at + 1].isspace()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("file", READ_BY, ids=str)
def test_damage_is_named(file: Path, way: str, study: Study, faults, tmp_path: Path) -> None:
    project = Path(shutil.copytree(study.finished, tmp_path / "project", symlinks=True))
    whole = (project / file).read_bytes()
    (project / file).unlink()  # a link to the user's table, which copies of the project share
    # One way by default, all of them in a larger test run.
    for way in faults.random.sample(list(WAYS), min(len(WAYS), faults.times)):
        with faults.of(f"{way}: {file.name if 'provenance' not in file.name else 'a record'}") as row:
            for _ in range(faults.times):
                damaged = whole
                while not matters(file, damaged, whole):
                    damaged = WAYS[way](whole, faults.random)
                (project / file).write_bytes(damaged)
                before = content_but(project, file)
                stage = faults.random.choice(READ_BY[file])
                row.tried += 1
                done = run_forked(project, *STAGES[stage])
                assert done.status == 1, f"{stage} took it\n{done.output}"
                assert "Traceback" not in done.output
                (line,) = done.errors
                assert str(file) in line, line
                assert content_but(project, file) == before


def content_but(project: Path, file: Path) -> dict[str, object]:
    """Content of all files except the damaged one, which may be unreadable."""
    kept, aside = project / file, project / "aside"
    kept.rename(aside)
    found = content(project)
    aside.rename(kept)
    return found


@pytest.mark.parametrize("way", WAYS)
def test_damage_to_what_no_stage_reads_is_found(way: str, study: Study, faults, tmp_path: Path) -> None:
    """`apao intact` names damaged tables, figures, codebooks and all other files in records."""
    project = Path(shutil.copytree(study.finished, tmp_path / "project", symlinks=True))
    assert re.fullmatch(
        r"\d+ records, and the files that they list, are intact", finish(project, "intact").output.strip()
    )
    names = [name for name in content(project) if not name.endswith(".provenance.json")]
    with faults.of(f"{way}: any file, before `apao intact`") as row:
        for name in names if faults.times >= 3 else faults.random.sample(names, 3):
            whole = (project / name).read_bytes()
            (project / name).write_bytes(WAYS[way](whole, faults.random))
            row.tried += 1
            done = run_forked(project, "intact")
            assert done.status == 1 and done.output.startswith(f"{name}: its content does not match"), done.output
            assert len(done.output.splitlines()) == 1
            (project / name).write_bytes(whole)


@pytest.mark.parametrize("way", WAYS)
def test_damaged_checkpoint_is_named(way: str, study: Study, faults, tmp_path: Path) -> None:
    stage, checkpoint = STAGES["train tiger"], TIGER_RUN / "checkpoint.safetensors"
    project = Path(shutil.copytree(study.before["train tiger"], tmp_path / "project", symlinks=True))
    run_forked(project, *stage, after=0, seen=(project / checkpoint).exists)
    whole = (project / checkpoint).read_bytes()
    with faults.of(f"{way}: checkpoint") as row:
        for _ in range(faults.times):
            (project / checkpoint).write_bytes(WAYS[way](whole, faults.random))
            row.tried += 1
            done = run_forked(project, *stage)
            assert done.status == 1, done.output
            (line,) = done.errors
            assert line.startswith(f"error: {checkpoint}: damaged checkpoint"), line
            assert not (project / TIGER_RUN / "model.safetensors").exists()
        (project / checkpoint).write_bytes(whole)
        finish(project, *stage)
        assert content(project) == study.expected["train tiger"]


def shards(project: Path) -> list[Path]:
    """The intact files."""
    return sorted((project / DATA).rglob("embeddings.shards/*/[0-9]*.safetensors"))


@pytest.mark.parametrize("way", WAYS)
def test_damaged_shard_is_made_again(way: str, study: Study, faults, tmp_path: Path) -> None:
    with faults.of(f"{way}: shard of embeddings") as row:
        for _ in range(faults.times):
            project = Path(shutil.copytree(study.before["embed"], tmp_path / "project", symlinks=True))
            assert run_forked(project, *STAGES["embed"], after=0, seen=partial(shards, project)).killed
            shard = faults.random.choice(shards(project))
            shard.write_bytes(WAYS[way](shard.read_bytes(), faults.random))
            row.tried += 1
            finish(project, *STAGES["embed"])
            assert content(project) == study.expected["embed"]
            shutil.rmtree(project)
