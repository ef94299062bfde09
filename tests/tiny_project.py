"""A project folder with a tiny study in it, for the real commands."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import yaml

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent


@dataclass
class Project:
    """A folder with params.yaml and the project's workflow, and perhaps code of its own in src."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def run(self, *arguments: str, code: int | None = 0, timeout: float = 600) -> str:
        """Run a command of the environment in the folder; return all it printed."""
        # As after `source .venv/bin/activate`.
        path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "COLUMNS": "200", "PATH": path, "APAO_MIRROR": ""}
        if (self.folder / "src").exists():
            environment["PYTHONPATH"] = str(self.folder / "src")
        environment |= self.environment
        command, *rest = arguments
        done = subprocess.run(
            [BIN / command, *rest],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert code is None or done.returncode == code, done.stdout
        return done.stdout

    def snakemake(self, *arguments: str, code: int | None = 0) -> str:
        return self.run("snakemake", "--cores", "2", *arguments, code=code)

    def take_code(self) -> None:
        """Copy the project's code, for a test that changes it."""
        shutil.copytree(ROOT / "src", self.folder / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))

    def replace(self, module: str, old: str, new: str) -> None:
        """Edit a module of the project's own code."""
        path = self.folder / "src" / "apao" / module
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def edit(self, *path: str, value: object) -> None:
        """Change one key of params.yaml."""
        params = self.params()
        *parents, last = path
        node = params
        for key in parents:
            node = node[key]
        node[last] = value
        (self.folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))

    def params(self) -> dict:
        return yaml.safe_load((self.folder / "params.yaml").read_text())


def write_interactions(path: Path, users: int = 30, items: int = 12, seed: int = 0) -> None:
    """A small table in which the next item follows from the last one, most of the time."""
    random = np.random.default_rng(seed)
    lines = ["user,item,timestamp,title"]
    for user in range(users):
        item = int(random.integers(items))
        for time in range(9):
            lines.append(f"u{user},i{item},{time},film {item} of kind {item % 3}")
            item = (item + 1) % items if random.random() < 0.8 else int(random.integers(items))
    path.write_text("\n".join(lines) + "\n")


def tiny_params() -> dict:
    """params.yaml with one csv dataset, tiny models and all ten studies."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["datasets"] = {
        "toy": {"source": "csv", "path": "toy.csv", "text": ["title"], "recipe": "tiny", "codes": "toy", "core": 3}
    }
    params["codes"] = {
        "toy": {
            "method": "rq-kmeans",
            "embedder": "minilm",
            "levels": 4,
            "clusters": 4,
            "collisions": "reassign",
        }
    }
    tiger = {"type": "tiger", "d_model": 8, "d_ff": 16, "d_kv": 4, "heads": 2, "encoder_layers": 1, "decoder_layers": 1}
    llama = {"type": "llama", "hidden": 8, "intermediate": 16, "heads": 2, "layers": 1}
    params["recipes"] = {
        "tiny": {
            "backbones": {"tiger": tiger, "llama": llama},
            "training": {"epochs": 2, "batch_size": 32, "precision": "fp32", "lr": 0.01},
            "decoding": {"beam": "all"},
            "measure": {"beams": [2, 5], "decoding_time": {"catalogue_sizes": [20, 40], "users": 1}},
        }
    }
    params.pop("tuned")
    for objective in params["objectives"].values():
        objective.pop("tuned", None)
    params["objectives"]["apao-pairwise"]["negatives"] = 4
    small = params["studies"].pop("small")
    params["studies"] = {"small": small}
    for study in small.values():
        if "datasets" in study:
            study["datasets"] = ["toy"]
        if "dataset" in study:
            study["dataset"] = "toy"
        if "backbones" in study:
            study["backbones"] = ["tiger"]
    # Few runs, but every stage and every kind of study; one of them on the second backbone.
    small["table1"].update(backbones=["tiger", "llama"], objectives=["ce", "apao-pointwise"])
    for study in ("table4", "figure1", "figure4", "figure5"):
        small[study]["objectives"] = ["ce", "apao-pointwise"]
    small["table3"].update(one_stage=["apao-pointwise"], two_stage=[])
    params["sweeps"] = {"beta": {"objectives": ["apao-pointwise"], "key": "beta", "values": [0.1, 0.4]}}
    for study in ("table5", "figure3"):
        small[study]["sweeps"] = ["beta"]
    small["figure2"].update(
        backbone="tiger",
        modules={"full": "apao-pairwise", "w/o prefix loss": "ce"},
        prefixes={"full": "apao-pairwise", "w/o prefix 0": "apao-pairwise+drop_level=0"},
    )
    return params


def make_project(folder: Path) -> Project:
    # A copy: through a link, paths relative to the rules (the captions of the report) lead to the real project.
    shutil.copytree(ROOT / "workflow", folder / "workflow", ignore=shutil.ignore_patterns(".snakemake"))
    write_interactions(folder / "toy.csv")
    (folder / "params.yaml").write_text(yaml.safe_dump(tiny_params(), sort_keys=False))
    return Project(folder)
