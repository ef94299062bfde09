"""A study with every stage, made once without disturbance: what each starts from, what it leaves, how long it takes."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from content import content
from harness import finish, in_fork
from tiny_encoder import write_encoder
from tiny_project import make_project

TIGER, LLAMA = "toy/tiger/apao-pairwise/seed42", "toy/llama/apao-pairwise/seed42"
STAGES = {
    "download": ("download", "toy"),
    "preprocess": ("preprocess", "toy"),
    "embed": ("embed", "toy", "--device", "cpu"),
    "codes": ("codes", "toy"),
    "baselines": ("baselines", "toy"),
    "train tiger": ("train", TIGER, "--device", "cpu"),
    "train llama": ("train", LLAMA, "--device", "cpu"),
    "evaluate tiger": ("evaluate", TIGER, "--device", "cpu"),
    "evaluate llama": ("evaluate", LLAMA, "--device", "cpu"),
    "pruning": ("pruning", TIGER, "--device", "cpu"),
    "beams": ("beams", TIGER, "--device", "cpu"),
    "decoding-time": ("decoding-time", "toy", "tiger", "--device", "cpu"),
    "report table1": ("report", "table1"),
    "report table2": ("report", "table2"),
    "report table4": ("report", "table4"),
    "report figure1": ("report", "figure1"),
    "report figure4": ("report", "figure4"),
}
ONE_OF_EACH_COMMAND = list({arguments[0]: stage for stage, arguments in reversed(STAGES.items())}.values())[::-1]


@dataclass
class Study:
    """Copies of the project before and after each stage."""

    folder: Path
    before: dict[str, Path] = field(default_factory=dict)
    after: dict[str, Path] = field(default_factory=dict)
    expected: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Content after each stage."""
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def finished(self) -> Path:
        """The whole study."""
        return self.after[list(STAGES)[-1]]


def make_study(folder: Path) -> Study:
    """Run every stage."""
    study = Study(folder)
    here = folder / "0"
    create(here)
    for number, (stage, arguments) in enumerate(STAGES.items(), 1):
        study.before[stage] = here
        here = Path(shutil.copytree(here, folder / str(number), symlinks=True))
        study.seconds[stage] = finish(here, *arguments).seconds
        study.after[stage], study.expected[stage] = here, content(here)
    return study


def create(folder: Path) -> None:
    """A table, an encoder for its texts, and params.yaml with one run of each backbone."""
    params = make_project(folder).params()
    in_fork(write_encoder, folder / "encoder", ["film", "of", "kind", *map(str, range(12))])
    params["embedders"]["tiny"] = {"model": "encoder", "pooling": "mean", "batch_size": 2, "shard_items": 2}
    params["codes"]["toy"]["embedder"] = "tiny"
    tiny = params["recipes"]["tiny"]
    tiny["training"] |= {"epochs": 6, "patience": 6, "threads": 1}
    tiny["backbones"]["tiger"]["dropout"] = 0.1
    # Carries every kind of state from step to step: dropout, drawn negatives, moments, prefix weights.
    params["objectives"]["apao-pairwise"] |= {"weights": "eq17"}
    runs = {"datasets": ["toy"], "objectives": ["apao-pairwise"], "seeds": [42]}
    small = params["studies"]["small"]
    params["studies"]["small"] = {
        "table1": runs | {"kind": "comparison", "backbones": ["tiger", "llama"]},
        "table2": {"kind": "dataset-sizes", "datasets": ["toy"]},
        "table4": runs | {"kind": "training-cost", "backbones": ["tiger", "llama"]},
        "figure1": small["figure1"] | {"backbones": ["tiger"], "objectives": ["apao-pairwise"]},
        "figure4": runs | {"kind": "beam-sizes", "backbones": ["tiger"]},
    }
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
