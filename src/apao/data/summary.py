"""Statistics of a prepared dataset: the content of stats.json, and the summary that ``preprocess`` prints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from apao.data.base import RawTables, Source
from apao.data.histories import Targets
from apao.data.ties import newest_first, sorted_by_item, tied
from apao.data.times import units
from apao.errors import UserError

if TYPE_CHECKING:
    from apao.data.prepared import Prepared

TIE_RULES = {
    "file": "interactions of a user with equal timestamps keep the order of the raw file",
    "random": "interactions of a user with equal timestamps are in a random order drawn from the ids",
}
RULES = {"keep": "kept", "drop": "dropped"}
MANY = 0.1
"""Warn above this share of items without a row, without text, or with the same text."""
MANY_REPEATS = 0.01
"""Warn above this share of rows that repeat an earlier row."""
MANY_REPEATERS = 0.05
"""Warn above this share of users whose test item is their validation item."""
MANY_TIES = 0.05
"""Warn above this share of interactions with tied times, if their order is systematic."""
SYSTEMATIC = 0.9
"""An order is systematic above this share of neighbouring pairs in one direction."""


def check_items(dataset: str, raw: RawTables, prepared: Prepared) -> None:
    """Refuse an item table that has no row for any item of the interactions.

    Raises:
        UserError: with example ids of both.
    """
    ids = prepared.items["raw_id"]
    if raw.items is None or ids.isin(raw.items["item"]).any():
        return
    listed = [*raw.items["item"][:2], *raw.unused_examples]
    table = f"the item table ids like {_some(listed)}" if listed else "the item table is empty"
    raise UserError(
        f"{dataset}: none of the {len(ids)} items of the interactions has a row in the item table: the interactions "
        f"have ids like {_some(ids)}, {table}; spell the ids the same in both, name the column that holds them in "
        "both, or use the item table that belongs to these interactions"
    )


def _some(ids: Iterable[str]) -> str:
    return " and ".join(map(repr, list(ids)[:2]))


def statistics(dataset: str, source: Source, raw: RawTables, prepared: Prepared) -> dict[str, Any]:
    """Statistics of a prepared dataset, ready for JSON; the first five entries are those of the paper's Table 2."""
    table = prepared.interactions
    lengths = np.bincount(table["user"])
    users, items, interactions = len(lengths), len(prepared.items), len(table)
    quantiles = {"min": 0.0, "quarter": 0.25, "median": 0.5, "three_quarters": 0.75, "max": 1.0}
    labels, user = (np.asarray(column, dtype=np.int64) for column in (table["split"].cat.codes, table["user"]))
    targets = Targets.of_labels(labels, user)
    both = np.flatnonzero((targets.valid >= 0) & (targets.test >= 0))
    first, item = np.cumsum(lengths)[both] - lengths[both], table["item"].to_numpy()
    same = item[first + targets.valid[both]] == item[first + targets.test[both]]
    texts = prepared.items["text"]
    shared = texts[texts != ""].value_counts()
    stats: dict[str, Any] = {
        "dataset": dataset,
        "users": users,
        "items": items,
        "interactions": interactions,
        "density_percent": round(100 * interactions / (users * items), 2),
        "core": source.core,
        "raw_interactions": len(raw.interactions),
        "malformed": raw.malformed,
        "duplicates": prepared.duplicates,
        "duplicates_rule": source.duplicates,
        "times": raw.times,
        "timestamp_decimals": raw.decimals,
        "tie_rule": TIE_RULES[source.ties],
        "tied_share": round(float(tied(table).mean()), 6),
        "split": source.split,
        "interactions_by_part": {part: int(count) for part, count in table["split"].value_counts(sort=False).items()},
        "users_with_test_equal_to_validation_item": int(same.sum()),
        "history_length": {name: float(np.quantile(lengths, q)) for name, q in quantiles.items()},
        "items_without_row": _without_row(raw, prepared),
        "item_rows_unused": raw.unused_rows + _unused(raw, prepared),
        "items_without_text": int((texts == "").sum()),
        "items_with_most_common_text": int(shared.iloc[0]) if len(shared) else 0,
        "notes": list(raw.notes),
    }
    return stats | {"warnings": [*raw.warnings, *_warnings(source, raw, prepared, stats)]}


def _without_row(raw: RawTables, prepared: Prepared) -> int | None:
    """Number of items without a row in the item table; None if there is no table."""
    return None if raw.items is None else int((~prepared.items["raw_id"].isin(raw.items["item"])).sum())


def _unused(raw: RawTables, prepared: Prepared) -> int:
    """Number of rows of items that the filter dropped."""
    return 0 if raw.items is None else int((~raw.items["item"].isin(prepared.items["raw_id"])).sum())


def _warnings(source: Source, raw: RawTables, prepared: Prepared, stats: dict[str, Any]) -> Iterator[str]:
    """Warnings about likely faults of the data, each with what to do."""
    rows, items, entry = stats["raw_interactions"], stats["items"], f"datasets.{stats['dataset']} of params.yaml"
    repeats, same = stats["duplicates"], stats["users_with_test_equal_to_validation_item"]
    if source.duplicates == "keep" and repeats > MANY_REPEATS * rows:
        yield (
            f"{repeats:,} of {rows:,} rows repeat the user, item and time of an earlier row; if these are not separate "
            f"events, set duplicates: drop in {entry}"
        )
    elif same > MANY_REPEATERS * stats["users"]:
        yield (
            f"for {same:,} of {stats['users']:,} users the test item is the validation item, so repeating the "
            "last item is a hit; if this is one event recorded twice, remove the second row"
        )
    yield from _tie_warnings(source, prepared, stats, entry)
    if (without_row := stats["items_without_row"] or 0) > MANY * items:
        assert raw.items is not None
        missing = prepared.items.loc[~prepared.items["raw_id"].isin(raw.items["item"]), "raw_id"]
        unused = f"; rows without interactions have ids like {_some(raw.unused_examples)}" if raw.unused_rows else ""
        yield (
            f"{without_row:,} of {items:,} items have no row in the item table, such as {_some(missing)}{unused}; "
            "spell the ids the same in both, or complete the table"
        )
    if raw.items is None:
        return
    if (empty := stats["items_without_text"] - without_row) > MANY * items:
        yield (
            f"{empty:,} of {items:,} items have a row but no text in the columns {', '.join(source.text)}; "
            f"name further columns under text in {entry}, or complete the table"
        )
    if (alike := stats["items_with_most_common_text"]) > max(1, MANY * items):
        text = prepared.items["text"]
        common = text[text != ""].value_counts().index[0]
        yield (
            f"{alike:,} of {items:,} items have the same text, {_short(common)!r}, so their codes cannot differ; "
            "if it stands for a missing text, name further columns under text, or complete the table"
        )


def _tie_warnings(source: Source, prepared: Prepared, stats: dict[str, Any], entry: str) -> Iterator[str]:
    if source.ties != "file" or stats["tied_share"] <= MANY_TIES:
        return
    way_out = f"set ties: random in {entry}"
    if sorted_by_item(prepared) >= SYSTEMATIC:
        yield (
            f"{stats['tied_share']:.1%} of the interactions share their time with another one of their user; the file "
            f"has these sorted by item, so a model would learn the order of items as behaviour; {way_out}, or use "
            "finer times"
        )
    elif newest_first(prepared) >= SYSTEMATIC:
        yield (
            f"{stats['tied_share']:.1%} of the interactions share their time with another one of their user, and the "
            f"file lists every user's newest rows first, so these are probably reversed; sort the file oldest first, "
            f"or {way_out}"
        )


def _by_time(stats: dict[str, Any]) -> list[str]:
    """What a split by time made of the interactions; leave-one-out has nothing to say."""
    parts = stats["interactions_by_part"]
    return [
        f"by time, {parts['train']:,} interactions train",
        f"{parts['valid']:,} users have a validation item",
        f"{parts['test']:,} a test item",
        f"{parts['rest']:,} later interactions are only history",
    ]


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


def summary(stats: dict[str, Any]) -> list[str]:
    """The statistics as a few lines of text, omitting zero counts."""
    malformed = sum(stats["malformed"].values())
    repeats = stats["duplicates"]
    dropped = repeats if stats["duplicates_rule"] == "drop" else 0
    filtered = stats["raw_interactions"] - dropped - stats["interactions"]
    rows = [
        f"{stats['raw_interactions'] + malformed:,} read",
        f"{stats['interactions']:,} kept",
        f"{malformed:,} malformed" if malformed else "",
        f"{repeats:,} that repeat an earlier row {RULES[stats['duplicates_rule']]}" if repeats else "",
        f"{filtered:,} dropped by the {stats['core']}-core filter" if filtered else "",
    ]
    rule = stats["tie_rule"].partition("timestamps ")[2]
    tied = f"{stats['tied_share']:.1%} of the interactions share their time with another one of their user; they {rule}"
    same = stats["users_with_test_equal_to_validation_item"]
    users = [f"{stats['users']:,}", f"{same:,} with test item = validation item" if same else ""]
    items = [f"{stats['items']:,}"]
    if stats["items_without_row"] is None:
        items.append("no item table")
    else:
        items += [
            f"{stats[key]:,} {what}" if stats[key] else ""
            for key, what in (
                ("items_without_row", "without a row in the item table"),
                ("items_without_text", "without text"),
                ("item_rows_unused", "unused texts of other items"),
            )
        ]
    lines = {
        "rows": rows,
        "malformed": [f"{count:,} {reason}" for reason, count in stats["malformed"].items()],
        "times": [stats["times"], units(stats["timestamp_decimals"])],
        "ties": [tied] if stats["tied_share"] else [],
        "split": _by_time(stats) if stats["split"] == "time" else [],
        "users": users,
        "items": items,
    }
    listed = [(name, ", ".join(filter(None, parts))) for name, parts in lines.items() if parts]
    listed += [("note", note) for note in stats["notes"]]
    return [f"{stats['dataset']}:", *(f"  {name:<9}  {text}" for name, text in listed)]
