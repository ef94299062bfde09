"""A small project of a user's own, and the `apao` command as the user starts it."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import subprocess
import sys
import time
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from safetensors.numpy import save_file

from apao.cli import main

ROOT = Path(__file__).parents[2]
USERS, ITEMS, CORE = 40, 15, 3
RUN = "shop/tiger/apao-pairwise+weights=eq17/seed3"
"""Carries every kind of state from step to step: dropout, drawn negatives, optimizer moments, prefix weights."""
RUN_FOLDER = Path("results", RUN)
CHECKPOINT, MODEL = RUN_FOLDER / "checkpoint.safetensors", RUN_FOLDER / "model.safetensors"
SECONDS = 240
"""Far more than any command here takes; a hang fails instead of blocking."""


@dataclass
class Done:
    """A command that has ended."""

    status: int
    output: str

    @property
    def errors(self) -> list[str]:
        """The lines that say what went wrong."""
        return [line for line in self.output.splitlines() if line.lower().startswith("error")]


def start(folder: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """`apao` in the project at ``folder``."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("APAO_")}
    return subprocess.Popen(
        [sys.executable, "-m", "apao.cli", *arguments],
        cwd=folder,
        env={**kept, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def end(process: subprocess.Popen[str]) -> Done:
    """Wait for it."""
    output, _ = process.communicate(timeout=SECONDS)
    return Done(process.returncode, output)


def apao(folder: Path, *arguments: str, **environment: str) -> Done:
    """Run a command to its end."""
    return end(start(folder, *arguments, **environment))


def entry_point(folder: Path, *arguments: str) -> Done:
    """The same in this process, which has imported torch already."""
    output, argv, status = io.StringIO(), sys.argv, 0
    sys.argv = ["apao", *arguments]
    try:
        with chdir(folder), redirect_stdout(output), redirect_stderr(output):
            main()
    except SystemExit as stopped:
        status = stopped.code or 0
    finally:
        sys.argv = argv
    return Done(status, output.getvalue())


def stop_after_epochs(folder: Path, how: signal.Signals, epochs: int = 1, delay: float = 0) -> Done:
    """Train ``RUN`` and send a signal ``delay`` seconds after so many more epochs are in the checkpoint."""
    process = start(folder, "train", RUN, "--device", "cpu")
    begun, seen, last = time.monotonic(), 0, stamp(folder / CHECKPOINT)
    while seen < epochs and process.poll() is None:
        assert time.monotonic() - begun < SECONDS
        now = stamp(folder / CHECKPOINT)
        seen, last = seen + (now != last), now
        time.sleep(0.002)
    time.sleep(delay)
    process.send_signal(how)
    return end(process)


def stamp(path: Path) -> tuple[int, int] | None:
    """Tells versions of a file that is replaced whole apart; None while there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


def hashes(folder: Path) -> dict[str, str]:
    """The content of every file below ``folder``; TensorBoard's, which name process and second, left out."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "tensorboard" not in path.parts
    }


def create(folder: Path) -> None:
    """A table, its params.yaml, and embeddings that nobody had to compute."""
    rng = np.random.default_rng(5)
    rows = [
        f"u{user},i{item},{day},Thing {item}"
        for user in range(USERS)
        for day, item in enumerate(rng.integers(0, ITEMS, rng.integers(5, 11)))
    ]
    folder.mkdir()
    (folder / "shop.csv").write_text("\n".join(["user,item,timestamp,title", *rows]) + "\n")
    write_params(folder, params())
    (folder / "data" / "shop").mkdir(parents=True)
    write_embeddings(folder, ITEMS)


def write_embeddings(folder: Path, items: int) -> None:
    """Vectors without a record, as a user may bring them."""
    table = np.random.default_rng(6).normal(size=(items, 6)).astype(np.float32)
    save_file({"embeddings": table}, folder / "data" / "shop" / "embeddings.safetensors")


def params() -> dict:
    """The project's params.yaml, with models of a few thousand weights and datasets of our own."""
    given = yaml.safe_load((ROOT / "params.yaml").read_text())
    shop = {"source": "csv", "path": "shop.csv", "text": ["title"], "core": CORE, "recipe": "tiny", "codes": "made"}
    office = {"source": "release", "name": "Office", "recipe": "tiny", "codes": "published"}
    coding = {"method": "rq-kmeans", "embedder": "minilm", "levels": 3, "clusters": 4, "collisions": "reassign"}
    tiger = {"d_model": 16, "d_ff": 16, "d_kv": 4, "heads": 2, "encoder_layers": 1, "decoder_layers": 1}
    training = {"epochs": 12, "patience": 12, "lr": 2e-3, "batch_size": 16, "precision": "fp32", "threads": 1}
    given.pop("tuned")
    for objective in given["objectives"].values():
        objective.pop("tuned", None)
    given["objectives"]["apao-pairwise"] |= {"negatives": 4}
    table = {"kind": "comparison", "datasets": ["shop"], "backbones": ["tiger"], "objectives": ["ce"], "seeds": [1]}
    return given | {
        "scale": "own",
        "datasets": {"shop": shop, "office": office},
        "codes": {"made": coding, "published": {"method": "published"}},
        "recipes": {
            "tiny": {
                "backbones": {"tiger": {"type": "tiger", "dropout": 0.1, **tiger}},
                "training": training,
                "decoding": {"beam": "all"},
            }
        },
        "studies": {"own": {"table1": table}},
    }


def write_params(folder: Path, values: dict) -> None:
    """Write params.yaml."""
    (folder / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
