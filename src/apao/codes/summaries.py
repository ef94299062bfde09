"""Results of ``embed`` and ``codes``, as numbers for JSON and as lines for the terminal.

Shapes: I items, D width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from apao.codes.embeddings import Vectors
from apao.codes.itemcodes import ItemCodes
from apao.codes.vocabulary import code_string
from apao.data.histories import IntArray
from apao.progress import console, warn

ODD_ITEMS, ODD_SHARE = 3, 0.05
"""Warn from this number and share of items without text, or with the same text or code."""
ODD_CUT, ODD_SHARING = 0.1, 0.2
"""Warn above this share of truncated tokens; from this share of items that share codes."""
LONGEST = 60
"""Maximum characters shown of an item's text."""


@dataclass
class Summary:
    """Lines for the terminal, and warnings about indistinguishable items with what to do."""

    lines: list[str]
    warnings: list[str] = field(default_factory=list)

    def print(self, dataset: str) -> None:
        """Print lines and warnings on standard error."""
        for line in self.lines:
            console.print(f"{dataset}: {line}")
        for warning in self.warnings:
            warn(f"{dataset}: {warning}")


def share(part: int, whole: int, what: str) -> str:
    """``137 of 300 items (45.7 %)``."""
    return f"{part:,} of {whole:,} {what} ({100 * part / whole:.1f} %)"


def _odd(part: int, items: int) -> bool:
    return part >= ODD_ITEMS and part >= ODD_SHARE * items


def text_facts(texts: pd.Series[str], raw_ids: pd.Series[str], lengths: IntArray, limit: int) -> dict[str, Any]:
    """Statistics of the items' texts, ready for JSON.

    Args:
        texts: (I,) texts, empty if an item has none.
        raw_ids: (I,) ids of the items.
        lengths: number of tokens of each distinct text, including special tokens.
        limit: maximum number of tokens of the encoder.
    """
    counts = texts[texts != ""].value_counts()
    without = raw_ids[texts == ""]
    common = counts.index[0]
    return {
        "items": len(texts),
        "items_without_text": len(without),
        "example_without_text": without.iloc[0] if len(without) else None,
        "distinct_texts": len(counts),
        "largest_group_with_one_text": int(counts.iloc[0]),
        "text_of_largest_group": _shown(common) if counts.iloc[0] > 1 else None,
        "token_limit": limit,
        "texts_cut": int((lengths > limit).sum()),
        "tokens": int(lengths.sum()),
        "tokens_cut": int(np.maximum(lengths - limit, 0).sum()),
    }


def _shown(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def text_summary(facts: dict[str, Any], dataset: str) -> Summary:
    """Summary of ``text_facts``."""
    items, without, largest = facts["items"], facts["items_without_text"], facts["largest_group_with_one_text"]
    limit, text, cut = facts["token_limit"], facts["text_of_largest_group"], facts["tokens_cut"]
    found = Summary([f"{items:,} items, {without:,} without text; {facts['distinct_texts']:,} distinct texts"])
    if largest > 1:
        found.lines[0] += f", the most common ({text!r}) of {largest:,} items"
    found.lines.append(
        f"{share(facts['texts_cut'], facts['distinct_texts'], 'distinct texts')} are longer than {limit:,} tokens; "
        f"truncation removed {share(cut, facts['tokens'], 'tokens')}"
        if facts["texts_cut"]
        else f"no text is longer than {limit:,} tokens; {facts['tokens']:,} tokens in total"
    )
    columns = f"name columns with their texts in datasets.{dataset}.text of params.yaml, or remove these items"
    if _odd(without, items):
        found.warnings.append(
            f"{share(without, items, 'items')} have no text (such as {facts['example_without_text']!r}); they all get "
            f"the mean vector, so their codes carry no information about them; {columns}"
        )
    if _odd(largest, items):
        found.warnings.append(
            f"{share(largest, items, 'items')} have the same text, {text!r}, and so the same vector; {columns}"
        )
    if cut > ODD_CUT * facts["tokens"]:
        found.warnings.append(
            f"{share(cut, facts['tokens'], 'tokens')} were truncated; raise the embedder's max_tokens, use a model "
            f"that reads more than {limit:,}, or put the most informative column first in datasets.{dataset}.text"
        )
    return found


def vector_facts(vectors: Vectors, raw_ids: pd.Series[str]) -> dict[str, Any]:
    """Statistics of precomputed vectors (I, D), ready for JSON."""
    # 0.0 and -0.0 differ in their bytes. Hashes, because the bytes of all rows would be a copy of the vectors.
    keys = pd.Series([hashlib.blake2b((row + np.float32(0)).data, digest_size=16).digest() for row in vectors])
    counts = keys.value_counts()
    example = raw_ids.iloc[int((keys == counts.index[0]).to_numpy().argmax())]
    return {
        "items": len(vectors),
        "width": vectors.shape[1],
        "distinct_vectors": len(counts),
        "largest_group_with_one_vector": int(counts.iloc[0]),
        "item_of_largest_group": example if counts.iloc[0] > 1 else None,
    }


def vector_summary(facts: dict[str, Any]) -> Summary:
    """Summary of ``vector_facts``."""
    items, largest, example = facts["items"], facts["largest_group_with_one_vector"], facts["item_of_largest_group"]
    found = Summary(
        [f"{items:,} items, {facts['width']:,} numbers each; {facts['distinct_vectors']:,} distinct vectors"]
    )
    if largest > 1:
        found.lines[0] += f", one of {largest:,} items (such as {example!r})"
    if _odd(largest, items):
        found.warnings.append(
            f"{share(largest, items, 'items')} have the same vector, that of {example!r}, so their codes carry no "
            "information about them; check how their vectors were computed"
        )
    return found


def example_of_largest_group(table: ItemCodes, raw_ids: Sequence[str]) -> dict[str, Any] | None:
    """The code that most items share, and the first three of them; None if no items share a code."""
    largest = int(table.items_per_code.argmax())
    if table.items_per_code[largest] == 1:
        return None
    spelled = "".join(code_string(level, int(code)) for level, code in enumerate(table.distinct[largest]))
    return {"code": spelled, "items": [raw_ids[item] for item in np.flatnonzero(table.code_of_item == largest)[:3]]}


def code_summary(report: dict[str, Any], entry: str, remedy: str) -> Summary:
    """Summary of ``code_quality.json``.

    Args:
        report: the content of that file.
        entry: key of the tokenizer in params.yaml.
        remedy: what to do about shared codes.
    """
    policy = report["collision_policy"]
    items, sharing, moved = report["items"], report["items_sharing_a_code"], report["items_moved"]
    largest, distinct, group = report["largest_group"], report["distinct_codes"], report["largest_group_example"]
    found = Summary([f"{items:,} items on {distinct:,} distinct codes of {report['levels']} levels"])
    if group is None:
        found.lines[0] += ", one per item"
    else:
        listed = ", ".join(map(repr, group["items"])) + (", ..." if largest > len(group["items"]) else "")
        found.lines[0] += (
            f"; {share(sharing, items, 'items')} share {report['shared_codes']:,} of the codes, the most {largest:,} "
            f"on {group['code']} ({listed})"
        )
    if policy != "keep":
        found.lines.append(f"collision policy {policy}: changed the code of {share(moved, items, 'items')}")
    if group is not None and (sharing >= ODD_SHARING * items or _odd(largest, items)):
        found.warnings.append(
            f"{share(sharing, items, 'items')} share codes, up to {largest:,} on one, and no model can distinguish the "
            f"items of a code; {remedy}; {entry}.collisions: extra only numbers them, which adds no information"
        )
    before = report["before_collision_policy"]
    if before is not None and _odd(before["largest_group"], items):
        found.warnings.append(
            f"{share(before['largest_group'], items, 'items')} had the same code before the collision policy "
            f"{policy} gave {moved:,} items other codes, which carry little information; {remedy}"
        )
    return found
