"""A project with a single run, for tests that interrupt or damage it."""

from __future__ import annotations

import signal
import time
from pathlib import Path

from helpers.content import version
from helpers.processes import Done, start
from helpers.project import Project, make_project, shipped_objectives, small_params, write_embeddings

RUN = "toy/tiger/apao-pairwise+weights=eq17/seed3"
"""A run with every kind of state: dropout, sampled negatives, optimizer moments, carried prefix weights."""
TRAIN, EVALUATE = ("train", RUN, "--device", "cpu"), ("evaluate", RUN, "--device", "cpu")
RUN_FOLDER = Path("results", RUN)
CHECKPOINT, MODEL = RUN_FOLDER / "checkpoint.safetensors", RUN_FOLDER / "model.safetensors"


def create(folder: Path) -> Project:
    """A table, its params.yaml, and made-up embeddings."""
    table = {"kind": "comparison", "datasets": ["toy"], "backbones": ["tiger"], "objectives": ["ce"], "seeds": [1]}
    office = {"source": "release", "name": "Office", "recipe": "tiny", "codes": "published"}
    tiny = {
        "backbones": {"tiger": {"dropout": 0.1}},
        "training": {"epochs": 12, "patience": 12, "lr": 2e-3, "batch_size": 16, "threads": 1},
    }
    params = small_params(
        {
            "datasets": {"office": office},
            "codes": {"toy": {"levels": 3}, "published": {"method": "published"}},
            "recipes": {"tiny": tiny},
            "objectives": shipped_objectives(),
            "studies": {"small": {"table1": table}},
        }
    )
    project = make_project(folder, params)
    write_embeddings(folder)
    return project


def stop_after_an_epoch(folder: Path, how: signal.Signals, delay: float = 0) -> Done:
    """Train ``RUN`` and send a signal ``delay`` seconds after the next epoch is in the checkpoint."""
    before = version(folder / CHECKPOINT)
    process = start(folder, "apao", *TRAIN)
    process.wait_for(lambda: version(folder / CHECKPOINT) != before)
    time.sleep(delay)
    process.send(how)
    return process.end()
