"""A study with every stage, made once without faults: inputs, outputs and duration of each stage."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from helpers.content import content
from helpers.encoder import write_encoder
from helpers.forks import finish, in_fork, preload
from helpers.project import Project, make_workflow, merged, shipped_objectives, small_params

import apao.report
import apao.stages

# Modules that the commands import.
preload(
    *(f"{room.__name__}.{each.name}" for room in (apao.stages, apao.report) for each in iter_modules(room.__path__)),
    "huggingface_hub",
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_pdf",
    "matplotlib.pyplot",
    "pyarrow.parquet",
    "sentence_transformers.sentence_transformer.modules",
    "sklearn.cluster",
    "tensorboard.compat.proto.event_pb2",
    "tensorboard.summary.writer.record_writer",
    "transformers.models.llama.modeling_llama",
)

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
    "exact": ("exact", TIGER, "--device", "cpu"),
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


def create(folder: Path) -> Project:
    """Make a table, an encoder for its texts, and params.yaml with one run per backbone."""
    runs = {"datasets": ["toy"], "objectives": ["apao-pairwise"], "seeds": [42]}
    studies = {
        "table1": runs | {"kind": "comparison", "backbones": ["tiger", "llama"]},
        "table2": {"kind": "dataset-sizes", "datasets": ["toy"]},
        "table4": runs | {"kind": "training-cost", "backbones": ["tiger", "llama"]},
        "figure1": {
            "kind": "pruning",
            "dataset": "toy",
            "backbones": ["tiger"],
            "objectives": ["apao-pairwise"],
            "seeds": [42],
        },
        "figure4": runs | {"kind": "beam-sizes", "backbones": ["tiger"]},
    }
    tiny = {
        "backbones": {"tiger": {"dropout": 0.1}},
        "training": {"epochs": 6, "patience": 6, "threads": 1},
    }
    params = small_params(
        {
            "embedders": {"tiny": {"model": "encoder", "pooling": "mean", "batch_size": 2, "shard_items": 2}},
            "codes": {"toy": {"embedder": "tiny"}},
            "recipes": {"tiny": tiny},
            # Has every kind of state: dropout, sampled negatives, optimizer moments, carried prefix weights.
            "objectives": merged(shipped_objectives(), {"apao-pairwise": {"weights": "eq17"}}),
            "studies": {"small": studies},
        }
    )
    in_fork(write_encoder, folder / "encoder", ["film", "of", "kind", *map(str, range(12))])
    return make_workflow(folder, params)
