"""The stage ``preprocess``: k-core, integer ids, order by time, leave-one-out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from apao.artifacts import Stage
from apao.data.base import RawTables, Source
from apao.data.download import changed_hashes, check_raw
from apao.data.kcore import k_core
from apao.errors import UserError
from apao.progress import console
from apao.runs import DatasetPaths

TIE_RULE = "interactions of a user with equal timestamps keep the order of the raw file"
SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Prepared:
    """A dataset as the later stages see it.

    Attributes:
        interactions: user and item (int32, from 0), timestamp (int64), split (train, valid, test);
            sorted by user, then time.
        items: item (int32), raw_id, text; row i is item i.
        tied: share of the interactions whose user has another one with the same timestamp.
    """

    interactions: pd.DataFrame
    items: pd.DataFrame
    tied: float


def preprocess(dataset: str, source: Source) -> None:
    """Write ``interactions.parquet``, ``items.parquet`` and ``stats.json`` of a downloaded dataset.

    Raises:
        UserError: when a raw file was damaged, holds too many malformed records, or nothing is left.
    """
    paths = DatasetPaths(dataset)
    params = source.model_dump(mode="json", exclude={"recipe", "codes"})
    with Stage("preprocess", paths.folder, [paths.manifest], params) as stage:
        for line in changed_hashes([paths]):
            raise UserError(f"{line}; run: apao download {dataset}")
        check_raw(dataset, source)
        raw = source.read(paths.raw)
        if raw.malformed:
            listed = ", ".join(f"{count} {reason}" for reason, count in raw.malformed.items())
            console.print(f"{dataset}: malformed lines left out: {listed}")
        prepared = prepare(dataset, raw, source.core)
        with stage.output(paths.interactions.name) as path:
            prepared.interactions.to_parquet(path, index=False)
        with stage.output(paths.items.name) as path:
            prepared.items.to_parquet(path, index=False)
        stage.output_json(paths.stats.name, statistics(dataset, raw, prepared, source.core))


def prepare(dataset: str, raw: RawTables, core: int) -> Prepared:
    """Filter, number, order and split.

    Users and items are numbered by first appearance in the filtered file, so that a file which is
    numbered that way keeps its ids. A user's interactions are ordered by time; where timestamps tie,
    the order of the file stands. The last one is the test item, the one before the validation item.

    Raises:
        UserError: when the filter leaves no interaction.
    """
    table = raw.interactions
    user_codes, _ = pd.factorize(table["user"])
    item_codes, _ = pd.factorize(table["item"])
    table = table[k_core(user_codes.astype(np.int64), item_codes.astype(np.int64), core)]
    if table.empty:
        raise UserError(
            f"{dataset}: none of the {len(raw.interactions)} interactions is left after the {core}-core filter; "
            f"lower core in the dataset's entry (at least 3), or bring a larger table"
        )
    user, _ = pd.factorize(table["user"])
    item, raw_ids = pd.factorize(table["item"])
    time = table["timestamp"].to_numpy(dtype=np.int64)
    order = np.lexsort((time, user))  # stable: ties keep the order of the file
    lengths = np.bincount(user)
    left = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(user))  # 1 for a user's last interaction
    interactions = pd.DataFrame(
        {
            "user": user[order].astype(np.int32),
            "item": item[order].astype(np.int32),
            "timestamp": time[order],
            "split": pd.Categorical.from_codes(np.maximum(3 - left, 0), categories=pd.Index(SPLITS)),
        }
    )
    items = pd.DataFrame(
        {
            "item": np.arange(len(raw_ids), dtype=np.int32),
            "raw_id": raw_ids,
            "text": _texts(raw.items, pd.Index(raw_ids)),
        }
    )
    return Prepared(interactions, items, float(interactions.duplicated(["user", "timestamp"], keep=False).mean()))


def _texts(items: pd.DataFrame | None, raw_ids: pd.Index[str]) -> list[str]:
    """For every item its columns as one line, ``title. description. ...``; empty where unknown."""
    if items is None:
        return [""] * len(raw_ids)
    columns = items.set_index("item").reindex(raw_ids).fillna("")
    return [_joined(row) for row in columns.itertuples(index=False, name=None)]


def _joined(parts: tuple[str, ...]) -> str:
    lines = (" ".join(part.split()).rstrip(".") for part in parts)
    return ". ".join(line for line in lines if line)


def statistics(dataset: str, raw: RawTables, prepared: Prepared, core: int) -> dict[str, Any]:
    """What is worth knowing of a prepared dataset; the first five entries are the paper's Table 2."""
    lengths = np.bincount(prepared.interactions["user"])
    users, items, interactions = len(lengths), len(prepared.items), len(prepared.interactions)
    quantiles = {"min": 0.0, "quarter": 0.25, "median": 0.5, "three_quarters": 0.75, "max": 1.0}
    return {
        "dataset": dataset,
        "users": users,
        "items": items,
        "interactions": interactions,
        "density_percent": round(100 * interactions / (users * items), 2),
        "core": core,
        "raw_interactions": len(raw.interactions),
        "malformed": raw.malformed,
        "tie_rule": TIE_RULE,
        "tied_share": round(prepared.tied, 6),
        "history_length": {name: float(np.quantile(lengths, q)) for name, q in quantiles.items()},
        "items_without_text": int((prepared.items["text"] == "").sum()),
    }
