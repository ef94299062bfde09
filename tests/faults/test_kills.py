"""SIGKILL at a random moment of every stage; after a rerun all files are byte-identical."""

from __future__ import annotations

import shutil
from pathlib import Path
from signal import SIGINT
from typing import Any

import pytest
from counting import TIMES
from helpers.content import assert_whole, content, epochs_in, is_finished, seconds_of_epochs
from helpers.forks import finish, run_forked
from study import LLAMA, ONE_OF_EACH_COMMAND, STAGES, TIGER, Study

pytestmark = pytest.mark.faults

SHARDS = Path("data", "toy", "embeddings.shards")
RUN_OF = {"train tiger": Path("results", TIGER), "train llama": Path("results", LLAMA)}
KILLED = list(STAGES) if TIMES > 1 else [*ONE_OF_EACH_COMMAND, "train llama", "report figure1"]


def shards(folder: Path) -> dict[str, int]:
    """Finished shards and the identity of their files, which changes when one is written again."""
    return {path.name: path.stat().st_ino for path in (folder / SHARDS).rglob("*.safetensors")}


@pytest.mark.parametrize("stage", KILLED)
def test_killed_stage_goes_on(stage: str, study: Study, faults, tmp_path: Path) -> None:
    arguments, expected = STAGES[stage], study.expected[stage]
    earlier = content(study.before[stage])
    with faults.of(f"SIGKILL in `apao {arguments[0]}`") as row:
        aimed = row.tried + faults.times
        while row.tried < aimed:
            # From scratch, or with the leftovers of an earlier attempt.
            start = faults.random.choice([study.before, study.after])[stage]
            project = Path(shutil.copytree(start, tmp_path / "project", symlinks=True))
            epochs, pieces = [], {}
            for _ in range(faults.random.randint(1, 3)):
                done = run_forked(project, *arguments, after=faults.random.uniform(0, study.seconds[stage]))
                if not done.killed:
                    row.lost += trained_twice(epochs, project, stage)
                    epochs = []  # a new training follows
                    break
                row.tried += 1
                assert_whole(project, earlier, expected)
                if stage in RUN_OF:
                    reached = epochs_in(project / RUN_OF[stage] / "checkpoint.safetensors")
                    row.lost += sum(old != new for old, new in zip(epochs, reached, strict=False))
                    # Killed when everything was done: a new training follows.
                    is_done = not reached and (project / RUN_OF[stage] / "train.provenance.json").exists()
                    epochs = [] if is_done else reached or epochs
                row.lost += sum(shards(project).get(name, inode) != inode for name, inode in pieces.items())
                pieces = shards(project)
            finish(project, *arguments)
            found = content(project)
            assert found == expected
            assert all(map(is_finished, found)), "something temporary is left"
            row.lost += trained_twice(epochs, project, stage)
            shutil.rmtree(project)


def trained_twice(epochs: list[dict[str, Any]], project: Path, stage: str) -> int:
    """Number of epochs in a checkpoint that were trained again."""
    if not epochs:
        return 0
    taken = seconds_of_epochs(project / RUN_OF[stage] / "history.csv")
    return sum(old["seconds"] != new for old, new in zip(epochs, taken, strict=False))


@pytest.mark.parametrize("stage", ["embed", "train tiger", "evaluate tiger"])
def test_ctrl_c(stage: str, study: Study, faults, tmp_path: Path) -> None:
    arguments = STAGES[stage]
    with faults.of("Ctrl-C") as row:
        aimed = row.tried + faults.times
        while row.tried < aimed:
            project = Path(shutil.copytree(study.before[stage], tmp_path / "project", symlinks=True))
            done = run_forked(project, *arguments, after=faults.random.uniform(0.1, study.seconds[stage]), how=SIGINT)
            if done.status != 0:
                row.tried += 1
                assert done.status == 130, done.output
                hint = "interrupted; rerun the same command to resume from the last checkpoint or finished file"
                assert done.output.splitlines()[-1] == hint
                assert "Traceback" not in done.output
                assert_whole(project, content(study.before[stage]), study.expected[stage])
                finish(project, *arguments)
            assert content(project) == study.expected[stage]
            shutil.rmtree(project)
