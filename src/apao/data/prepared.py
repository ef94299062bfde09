"""From raw tables to a dataset: k-core, integer ids, order by time, split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from apao.data.base import RawTables
from apao.data.histories import PARTS, REST, TEST, VALID, IntArray
from apao.data.kcore import k_core
from apao.data.split import Rule, by_time, leave_one_out
from apao.data.ties import drawn
from apao.errors import UserError


@dataclass(frozen=True)
class Prepared:
    """A prepared dataset, the input of the later stages.

    Attributes:
        interactions: user and item (int32, from 0), timestamp (int64), split (one of ``histories.PARTS``);
            sorted by user, then time.
        items: item (int32), raw_id, title, text; row i is item i. The title is the first column of the text.
        users: user (int32), raw_id; row i is user i.
        duplicates: number of rows that repeat the user, item and timestamp of an earlier row, before the filter.
        rows: (N,) row of each interaction in the raw table.
    """

    interactions: pd.DataFrame
    items: pd.DataFrame
    users: pd.DataFrame
    duplicates: int
    rows: IntArray


def prepare(
    dataset: str,
    raw: RawTables,
    core: int,
    duplicates: str = "keep",
    ties: str = "file",
    ties_seed: int = 0,
    split: Rule = "leave-one-out",
) -> Prepared:
    """Filter, number, order and split.

    Users and items are numbered by first appearance in the filtered file, so a file already numbered that way keeps
    its ids. A user's interactions are ordered by time. Equal timestamps are ordered by ``ties``: ``file`` keeps the
    order of the file, ``random`` draws one from the ids and ``ties_seed``, independent of the order of the rows. Then
    ``split.leave_one_out`` or ``split.by_time`` labels them.

    Raises:
        UserError: when there are no interactions or none passes the filter, or a split by time has no times or no
            targets.
    """
    if raw.interactions.empty:
        raise UserError("; ".join([f"{dataset}: its files hold no interactions", *raw.notes]))
    table = raw.interactions.reset_index(drop=True)
    repeated = table.duplicated()
    if duplicates == "drop":
        table = table[~repeated]
    user_codes, _ = pd.factorize(table["user"])
    item_codes, _ = pd.factorize(table["item"])
    table = table[k_core(user_codes.astype(np.int64), item_codes.astype(np.int64), core)]
    if table.empty:
        raise UserError(
            f"{dataset}: none of the {len(raw.interactions)} interactions is left after the {core}-core filter; "
            f"lower core in the dataset's entry (at least 3), or use a larger table"
        )
    user, raw_users = pd.factorize(table["user"])
    item, raw_ids = pd.factorize(table["item"])
    time = table["timestamp"].to_numpy(dtype=np.int64)
    # lexsort is stable: without a further key, ties keep the order of the file.
    tie_key = [drawn(table["user"], table["item"], ties_seed)] if ties == "random" else []
    order = np.lexsort((*tie_key, time, user))
    user, item, time = user[order], item[order], time[order]
    labels = leave_one_out(user) if split == "leave-one-out" else _by_time(dataset, raw, user, time)
    interactions = pd.DataFrame(
        {
            "user": user.astype(np.int32),
            "item": item.astype(np.int32),
            "timestamp": time,
            # Leave-one-out has no rest: the categories say by which rule the labels were made.
            "split": pd.Categorical.from_codes(
                labels, categories=pd.Index(PARTS[:REST] if split == "leave-one-out" else PARTS)
            ),
        }
    )
    items = pd.DataFrame(
        {
            "item": np.arange(len(raw_ids), dtype=np.int32),
            "raw_id": raw_ids,
            **_texts(raw.items, pd.Index(raw_ids)),
        }
    )
    users = pd.DataFrame({"user": np.arange(len(raw_users), dtype=np.int32), "raw_id": raw_users})
    return Prepared(interactions, items, users, int(repeated.sum()), table.index.to_numpy(dtype=np.int64)[order])


def _by_time(dataset: str, raw: RawTables, user: IntArray, time: IntArray) -> IntArray:
    entry = f"datasets.{dataset} of params.yaml"
    if not raw.clocked:
        raise UserError(
            f"{dataset}: split: time needs times that can be compared between users, but its files only have the order "
            f"of each user's interactions ({raw.times}); set split: leave-one-out in {entry}"
        )
    labels = by_time(user, time)
    for part in (VALID, TEST):
        if not (labels == part).any():
            raise UserError(
                f"{dataset}: split: time finds no user with an interaction in the period of {PARTS[part]} and one "
                f"before it; set split: leave-one-out in {entry}"
            )
    return labels


def _texts(items: pd.DataFrame | None, raw_ids: pd.Index[str]) -> dict[str, list[str]]:
    """Lines per item: its first column (``title``) and all columns (``text``); empty if unknown."""
    if items is None:
        return {"title": [""] * len(raw_ids), "text": [""] * len(raw_ids)}
    columns = items.set_index("item").reindex(raw_ids).fillna("")
    rows = list(columns.itertuples(index=False, name=None))
    return {"title": [single_line(row[0]) if row else "" for row in rows], "text": [joined_text(row) for row in rows]}


def joined_text(columns: Sequence[str]) -> str:
    """An item's columns as one line, ``title. description. ...``."""
    lines = (single_line(column).rstrip(".") for column in columns)
    return ". ".join(line for line in lines if line)


def single_line(text: str) -> str:
    """``text`` with every run of whitespace replaced by a single space."""
    return " ".join(text.split())
