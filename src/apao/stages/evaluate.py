"""The stage ``evaluate``: beam search for every user, per-user ranks, and their means."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pandas as pd
import torch

from apao.devices import device_name
from apao.evaluation.metrics import (
    PREFIX,
    PREFIX_CUTOFF,
    code_ranks,
    items_before,
    items_per_state,
    prefixes_kept,
    rank_metrics,
)
from apao.progress import console
from apao.stages.record import Stage
from apao.stages.trained import SPLITS, Split, TrainedRun
from apao.study.paths import DatasetPaths
from apao.study.run_params import RunParams
from apao.study.runs import Run


def evaluate(run: Run, params: RunParams, device: torch.device) -> None:
    """Write metrics.json (validation and test) and ranks.parquet (one row per user and split).

    ``params`` are the run's training parameters and the decoding (``run_params.RunRecord.decoded``).
    """
    paths = DatasetPaths(run.dataset)
    inputs = [run.record, run.model, paths.codes, paths.interactions]
    with Stage("evaluate", run.folder, inputs, params.for_evaluation(), device_name(device)) as stage:
        trained = TrainedRun(run, params, device)
        metrics: dict[str, Any] = {
            "run": str(run),
            **params.for_evaluation()["decoding"],
            "beam": trained.beam,
            "eos": params.decodes_eos,
        }
        tables = []
        for split in SPLITS:
            table, metrics[split], seconds = evaluate_split(trained, split)
            tables.append(table)
            console.print(f"{run}: {split}, {len(table)} users in {seconds:.1f} s, {len(table) / seconds:.0f} users/s")
        with stage.output("ranks.parquet") as path:
            pd.concat(tables, ignore_index=True).to_parquet(path, index=False)
        stage.output_json("metrics.json", metrics)


def evaluate_split(
    trained: TrainedRun, split: Split, beam: int | None = None
) -> tuple[pd.DataFrame, dict[str, Any], float]:
    """Per-user ranks, their metrics, and decoding time in seconds.

    The ranks have the columns split, user, item, rank, items_before, group, and prefix_1 .. prefix_T: whether the
    target's prefix of that length was among the best ``PREFIX_CUTOFF`` beams after its step.

    ``beam`` overrides the run's own. Metrics with a cutoff larger than the beam are None, unless the beam contains
    all codes of the catalogue.
    """
    codes = trained.codes
    beam = beam or trained.beam
    listed = beam if beam < len(codes.distinct) else None
    items = items_per_state(codes, trained.trie)
    started = time.perf_counter()
    parts = []
    for decoded in trained.decode(split, beam):
        ranks = code_ranks(decoded.beams, decoded.targets)
        before = items_before(decoded.beams, ranks, trained.trie, items)
        kept = prefixes_kept(decoded.beams.states, trained.trie.walk(decoded.targets)).cpu().numpy()
        prefixes = {f"{PREFIX}{level}": column for level, column in enumerate(kept.T, start=1)}
        ranked = {"user": decoded.users, "rank": ranks.cpu().numpy(), "items_before": before.cpu().numpy()}
        parts.append(ranked | prefixes)
    seconds = time.perf_counter() - started

    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    table = pd.DataFrame(columns).sort_values("user", ignore_index=True)
    positions = trained.histories.evaluation_targets(split)
    item = trained.histories.items[trained.histories.offsets[:-1] + positions]
    table.insert(0, "split", split)
    table.insert(2, "item", item)
    table.insert(5, "group", codes.items_per_code[codes.code_of_item[item]])
    prefix_recall = table.filter(like=PREFIX).mean()
    metrics = {
        "users": len(table),
        **rank_metrics(table, listed),
        f"prefix_recall@{PREFIX_CUTOFF}": (
            None if listed is not None and listed < PREFIX_CUTOFF else [float(value) for value in prefix_recall]
        ),
    }
    return table, metrics, seconds
