"""The stage ``evaluate``: beam search for every user, per-user ranks, and their means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from apao.data.histories import IntArray, Split
from apao.decoding.lists import ItemLists, Lister
from apao.evaluation.list_metrics import LIST_LENGTH, RECALL, list_metrics
from apao.evaluation.metrics import (
    PREFIX,
    PREFIX_CUTOFF,
    PREFIX_RECALL,
    code_ranks,
    items_before,
    prefixes_kept,
    rank_metrics,
    user_metrics,
)
from apao.progress import console
from apao.stages.trained import SPLITS, TrainedRun, measuring
from apao.study.paths import RESULTS
from apao.study.run_params import RunParams
from apao.study.runs import Run
from apao.trackers.base import Tracked, Tracker, tracking


def evaluate(run: Run, params: RunParams, device: torch.device, tracker: Tracker | None = None) -> None:
    """Write metrics.json (validation and test), ranks.parquet (one row per user and split) and lists.parquet.

    lists.parquet has the best items per test user: columns user, rank from 1, item, and logp, the log-probability of
    the item's code. As for the metrics, items of the history are not removed.

    ``params`` are the run's training parameters and the decoding (``run_params.RunRecord.decoded``). ``tracker`` gets
    the test metrics of what is then written; if it fails, nothing else does.
    """
    with measuring("evaluate", run, params, device) as (stage, trained):
        metrics: dict[str, Any] = {
            "run": str(run),
            **params.for_evaluation()["decoding"],
            "beam": trained.beam,
            "eos": params.decodes_eos,
        }
        tables = []
        for split in SPLITS:
            found = evaluate_split(trained, split)
            tables.append(found.ranks)
            metrics[split] = found.metrics
            rate = found.metrics["users"] / found.seconds
            console.print(
                f"{run}: {split}, {found.metrics['users']} users in {found.seconds:.1f} s, {rate:.0f} users/s"
            )
        with stage.output("ranks.parquet") as path:
            pd.concat(tables, ignore_index=True).to_parquet(path, index=False)
        with stage.output("lists.parquet") as path:
            found.list_table().to_parquet(path, index=False, compression="zstd")
        stage.output_json("metrics.json", metrics)
    with tracking(tracker, Tracked(str(run), run.folder, RESULTS, params.for_training())) as feed:
        feed.test(metrics["test"])


@dataclass(frozen=True)
class Evaluation:
    """Results of one split.

    Attributes:
        ranks: one row per user with the columns split, user, item, rank, items_before, group, and prefix_1 ..
            prefix_T: whether the target's prefix of that length was among the best ``PREFIX_CUTOFF`` beams after its
            step.
        lists: the best ``LIST_LENGTH`` items of every user.
        metrics: means over the users.
        seconds: time of encoding and search.
    """

    ranks: pd.DataFrame
    lists: ItemLists
    metrics: dict[str, Any]
    seconds: float

    def list_table(self) -> pd.DataFrame:
        """The lists as a table user, rank, item, logp, with small data types."""
        columns = {"user": self.lists.users, "rank": self.lists.ranks, "item": self.lists.items}
        return pd.DataFrame(columns | {"logp": self.lists.logp}).astype(
            {"user": np.int32, "rank": np.int8, "item": np.int32, "logp": np.float32}
        )


def evaluate_split(
    trained: TrainedRun, split: Split, beam: int | None = None, users: IntArray | None = None
) -> Evaluation:
    """Evaluate the users of a split.

    ``beam`` overrides the run's own. Metrics with a cutoff larger than the beam are None, unless the beam contains
    all codes of the catalogue. ``users`` are some of those with a target; None: all.
    """
    codes = trained.codes
    beam = beam or trained.beam
    listed = beam if beam < len(codes.distinct) else None
    lister, seconds = Lister(codes, trained.trie), 0.0
    parts, lists = [], []
    for decoded in trained.decode(split, beam, users):
        ranks = code_ranks(decoded.beams, decoded.targets).cpu().numpy()
        found, logp = lister.ranked(decoded.beams, trained.decoded_tokens)
        before = items_before(codes.items_per_code[found], ranks)
        best = [states[:, :PREFIX_CUTOFF] for states in decoded.beams.states]
        kept = prefixes_kept(best, decoded.prefixes).cpu().numpy()
        prefixes = {f"{PREFIX}{level}": column for level, column in enumerate(kept.T, start=1)}
        parts.append({"user": decoded.users, "rank": ranks, "items_before": before, **prefixes})
        lists.append(lister.lists(found, logp, LIST_LENGTH).renumbered(decoded.users))
        seconds += decoded.seconds

    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    table = pd.DataFrame(columns).sort_values("user", ignore_index=True)
    item = trained.histories.target_items(split, table["user"].to_numpy())
    table.insert(0, "split", split)
    table.insert(2, "item", item)
    table.insert(5, "group", codes.items_per_code[codes.code_of_item[item]])
    merged = ItemLists.merged(lists)
    prefix_recall = table.filter(like=PREFIX).mean()
    popularity = trained.histories.train_popularity(codes.items)
    of_lists = list_metrics(merged.items, popularity, item, user_metrics(table)[RECALL])
    metrics = {
        "users": len(table),
        **rank_metrics(table, listed),
        **(of_lists if listed is None or listed >= LIST_LENGTH else dict.fromkeys(of_lists)),
        PREFIX_RECALL: (
            None if listed is not None and listed < PREFIX_CUTOFF else [float(value) for value in prefix_recall]
        ),
    }
    return Evaluation(table, merged, metrics, seconds)
