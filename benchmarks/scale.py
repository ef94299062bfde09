"""A large catalogue end to end: every stage in a process of its own, with its time and peak memory.

The data is random: vectors of groups of items within groups, and users who meet every item at least three times.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
import yaml

from apao.codes.coding import Matrix
from apao.codes.itemcodes import ItemCodes
from apao.codes.quality import quality
from apao.codes.tokenizers.rqkmeans import residual_kmeans
from apao.devices import keep_freed_memory
from apao.errors import UserError
from apao.files import read_json, write_json
from apao.progress import console
from apao.stages.evaluate import evaluate_split
from apao.stages.exact import sample
from apao.stages.trained import TrainedRun
from apao.study.params import load
from apao.study.paths import DatasetPaths
from apao.study.runs import Run
from benchmarks.measure import peak_memory
from benchmarks.subject import ROOT

WIDTH = 384
GROUPS, SUBGROUPS = 500, 20_000
CORE = 3
RUN = "large/tiger/ce/seed1"
STAGES = (("download", "large"), ("preprocess", "large"), ("embed", "large"), ("codes", "large"), ("train", RUN))
DECODED = 3_000
"""Users of the sample that is decoded and evaluated after the stages."""
BATCH = 128


class Scale(NamedTuple):
    """Size of the whole."""

    items: int
    users: int
    steps: int
    mini_batches: int | None


QUICK, FULL = Scale(10_000, 1_000, 20, 50), Scale(1_000_000, 30_000, 200, 300)


@dataclass(frozen=True)
class Part:
    """What one command took.

    Attributes:
        name: command of ``apao``, or ``decode``.
        seconds: wall time.
        cpu_seconds: of all its threads.
        peak_mb: largest resident memory of its process, mapped files included.
    """

    name: str
    seconds: float
    cpu_seconds: float
    peak_mb: float


def params(scale: Scale, vectors: str, ids: str, interactions: str) -> dict[str, Any]:
    """The study: RQ-K-means with distinct codes, and a small TIGER that is trained for ``steps`` steps."""
    tiger = {"max_history": 20, "d_model": 128, "d_ff": 512, "d_kv": 32, "heads": 4}
    return {
        "scale": "none",
        "datasets": {
            "large": {"source": "csv", "path": interactions, "core": CORE, "recipe": "large", "codes": "large"}
        },
        "embedders": {"own": {"file": vectors, "ids": ids}},
        "codes": {
            "large": {
                "method": "rq-kmeans",
                "embedder": "own",
                "levels": 4,
                "clusters": 256,
                "collisions": "reassign",
                "mini_batches": scale.mini_batches,
            }
        },
        "recipes": {
            "large": {
                "backbones": {"tiger": {"type": "tiger", **tiger, "encoder_layers": 2, "decoder_layers": 2}},
                "training": {
                    "epochs": 1,
                    "examples_per_epoch": scale.steps * BATCH,
                    "batch_size": BATCH,
                    "threads": os.cpu_count() or 1,
                },
                "decoding": {"beam": 20},
                "measure": {"beams": [20], "decoding_time": {"catalogue_sizes": [1000], "users": 1}},
            }
        },
        "objectives": {"ce": {"type": "ce"}},
        "studies": {"none": {}},
    }


def fill(vectors: Matrix, rng: np.random.Generator) -> None:
    """Vectors (I, D) of items in subgroups of groups."""
    groups = rng.normal(size=(GROUPS, WIDTH)).astype(np.float32)
    subgroups = rng.normal(size=(SUBGROUPS, WIDTH)).astype(np.float32)
    group_of = rng.integers(GROUPS, size=SUBGROUPS)
    for first in range(0, len(vectors), 10_000):
        rows = min(10_000, len(vectors) - first)
        chosen = rng.integers(SUBGROUPS, size=rows)
        own = rng.standard_normal((rows, WIDTH), dtype=np.float32)
        vectors[first : first + rows] = groups[group_of[chosen]] + 0.7 * subgroups[chosen] + 0.5 * own


def write_data(folder: Path, scale: Scale) -> None:
    """Write the files that a user would bring: vectors, their ids, interactions and params.yaml."""
    rng = np.random.default_rng(0)
    vectors = np.lib.format.open_memmap(folder / "vectors.npy", "w+", np.float32, (scale.items, WIDTH))
    fill(vectors, rng)
    vectors.flush()
    (folder / "ids.txt").write_text("".join(f"item{item}\n" for item in range(scale.items)))

    # Every item as often as the filter asks for, and once more a tenth of the popular ones.
    most_popular = rng.zipf(1.5, size=scale.items // 10) % scale.items
    items = rng.permutation(np.concatenate([np.arange(scale.items)] * CORE + [most_popular]))
    time_of = np.arange(len(items))
    table = pd.DataFrame({"user": time_of % scale.users, "item": items, "timestamp": 1_700_000_000 + time_of})
    table["item"] = "item" + table["item"].astype(str)
    table.to_csv(folder / "interactions.csv", index=False)
    (folder / "params.yaml").write_text(
        yaml.safe_dump(params(scale, "vectors.npy", "ids.txt", "interactions.csv"), sort_keys=False)
    )


def decode_sample() -> None:
    """Beam search for a sample of the test users of the run in this folder; write sample.json."""
    keep_freed_memory()
    trained = TrainedRun(Run.parse(RUN), load(Path("params.yaml")).resolve(Run.parse(RUN)), torch.device("cpu"))
    found = evaluate_split(trained, "test", users=sample(trained.histories.evaluated("test"), DECODED))
    write_json(Path("sample.json"), {**found.metrics, "users_per_second": found.metrics["users"] / found.seconds})


def measured(folder: Path) -> Iterator[Part]:
    """Do every part in ``folder``, one after another.

    Raises:
        CalledProcessError: when one fails; it has said why.
    """
    here = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    commands = [(stage, ["-m", "apao", stage, name]) for stage, name in STAGES]
    for part, command in (*commands, ("decode", ["-c", "from benchmarks import scale; scale.decode_sample()"])):
        began = time.perf_counter()
        process = subprocess.Popen([sys.executable, *command], cwd=folder, env=here)
        # wait4 and not wait: it has the peak memory of this process alone.
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, process.args)
        yield Part(part, time.perf_counter() - began, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def whole_study(folder: Path, scale: Scale) -> None:
    """Do the whole in ``folder`` and print a table of it."""
    # In a process of its own: a process begins with the peak memory of the one that starts it.
    writer = get_context("spawn").Process(target=write_data, args=(folder, scale))
    writer.start()
    writer.join()
    if writer.exitcode:
        raise UserError(f"{folder}: the data could not be written there; the lines above say why")
    parts = []
    for part in measured(folder):
        console.print(f"{part.name}: {part.seconds:.0f} s, {part.peak_mb:.0f} MB")
        parts.append(part)
    print(table(parts))
    coded = read_json(folder / DatasetPaths("large").code_quality)
    metrics = read_json(folder / "sample.json")
    print(
        f"{coded['items']:,} items on {coded['distinct_codes']:,} codes, {coded['items_moved']:,} moved by the "
        f"collision policy; {metrics['users']:,} of {scale.users:,} test users decoded, "
        f"{metrics['users_per_second']:.0f} a second, recall@20 {metrics['recall@20']:.4f}."
    )


def table(parts: list[Part]) -> str:
    """As Markdown, with the sum of the times and the largest memory."""
    whole = Part("all", *(sum(getattr(part, name) for part in parts) for name in ("seconds", "cpu_seconds")), 0)
    lines = ["| part | seconds | CPU seconds | peak MB |", "| --- | ---: | ---: | ---: |"]
    for part in (*parts, whole):
        peak = part.peak_mb or max(each.peak_mb for each in parts)
        lines.append(f"| {part.name} | {part.seconds:.0f} | {part.cpu_seconds:.0f} | {peak:,.0f} |")
    return "\n".join(lines) + "\n"


def kmeans(items: int, levels: int, mini_batches: int | None) -> None:
    """Fit RQ-K-means alone to ``items`` vectors here; print what it took and how good its codes are."""
    vectors = np.empty((items, WIDTH), dtype=np.float32)
    fill(vectors, np.random.default_rng(0))
    began, spent = time.perf_counter(), time.process_time()
    coding = residual_kmeans(vectors, levels, 256, mini_batches=mini_batches)
    seconds, spent = time.perf_counter() - began, time.process_time() - spent
    found = quality(ItemCodes(coding.codes), coding.relative_errors)
    print(
        f"{items:,} x {WIDTH}, {levels} levels of 256, {coding.facts}: {seconds:.0f} s, {spent:.0f} CPU s, peak "
        f"{peak_memory() / 2**20:,.0f} MB, relative error {found['relative_reconstruction_error']}, perplexity "
        f"{found['perplexity']}, {found['distinct_codes']:,} distinct codes"
    )
