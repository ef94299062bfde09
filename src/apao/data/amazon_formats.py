"""The three public formats of Amazon's reviews and item metadata, detected from the keys of each record.

2014: reviews with ``reviewerID``, ``asin``, ``unixReviewTime``; metadata as Python literals, ``description`` a string
and ``categories`` a list of lists. 2018: the same keys in reviews; metadata as JSON, ``description`` and ``category``
lists. 2023: ``user_id``, ``parent_asin`` and ``timestamp`` in milliseconds; metadata with ``parent_asin``, ``store``
and flat ``categories``. The item id of 2014 and 2018 is ``asin``, that of 2023 ``parent_asin``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from apao.data.records import Malformed, clean_text, identifier, text_of
from apao.data.times import NUMBER, Time
from apao.errors import UserError

Column = Literal["title", "description", "brand", "categories"]
KEYS = {"title": ("title",), "description": ("description",), "brand": ("brand", "store")}
"""Keys of each column in the formats; for categories see ``_categories``."""
EARLIER, LATER = "asin", "parent_asin"
"""Key of the item id: up to 2018, and in 2023."""


class Recognised:
    """The format of one file, determined by its first record; all other records must agree."""

    def __init__(self, path: Path, kind: str, keys: Mapping[str, str], years: Mapping[str, str]) -> None:
        """``keys`` maps record keys to the item-id key that they imply, ``years`` record keys to the year."""
        self.path, self.kind = path, kind
        self.item_key, self.year = "", ""
        self._keys, self._years = keys, years
        self._line = 0

    def of(self, record: dict[str, Any], line: int) -> str:
        """Key of the record's item id.

        Raises:
            UserError: when an earlier line had another format.
        """
        item_key = next((item_key for key, item_key in self._keys.items() if key in record), "")
        if item_key and not self.item_key:
            self.item_key, self._line = item_key, line
        elif item_key and item_key != self.item_key:
            earlier = self.name
            self.item_key = item_key
            raise UserError(
                f"{self.path}:{line}: {self.kind} of Amazon {self.name}, but line {self._line} is of Amazon {earlier}; "
                "use a file of one year"
            )
        if not self.year:
            self.year = next((year for key, year in self._years.items() if key in record), "")
        return self.item_key or EARLIER

    @property
    def name(self) -> str:
        """Year of the format."""
        return "2023" if self.item_key == LATER else self.year or "2014 or 2018"

    @property
    def note(self) -> str:
        """Note about the detected format."""
        return f"{self.path.name} is read as {self.kind} of Amazon {self.name}, items by {self.item_key}"


def reviews_format(path: Path) -> Recognised:
    """Format detection for a file of reviews."""
    keys, years = {"user_id": LATER, "reviewerID": EARLIER}, {"verified": "2018", "helpful": "2014"}
    return Recognised(path, "reviews", keys, years)


def metadata_format(path: Path) -> Recognised:
    """Format detection for a file of metadata."""
    return Recognised(path, "metadata", {LATER: LATER, EARLIER: EARLIER}, {"category": "2018", "categories": "2014"})


def check_same(reviews: Recognised, metadata: Recognised) -> None:
    """Refuse reviews and metadata of different years, since they describe different items.

    Raises:
        UserError: naming both files.
    """
    keys = {reviews.item_key, metadata.item_key} - {""}
    years = {reviews.year, metadata.year} - {""}
    if len(keys) > 1 or (keys == {EARLIER} and len(years) > 1):
        raise UserError(
            f"{reviews.path} holds reviews of Amazon {reviews.name} (items by {reviews.item_key}), but "
            f"{metadata.path} metadata of Amazon {metadata.name} (items by {metadata.item_key}); "
            "use two files of the same year"
        )


def review(record: dict[str, Any], item_key: str) -> tuple[str, str, Time]:
    """User, item and time of a review."""
    later = item_key == LATER
    key, unit = ("timestamp", "milliseconds") if later else ("unixReviewTime", "seconds")
    time = record.get(key)
    if not isinstance(time, int) or isinstance(time, bool) or abs(time) >= 1 << 62:
        raise Malformed(f"without {key} in whole {unit}")
    user = identifier(record, "user_id" if later else "reviewerID")
    return user, identifier(record, item_key), Time(NUMBER, time, 0)


def item_text(record: dict[str, Any], column: Column) -> str:
    """A column of an item's metadata, cleaned; empty if the record lacks it."""
    if column == "categories":
        return clean_text(", ".join(_categories(record)))
    value = next((record[key] for key in KEYS[column] if record.get(key)), None)
    parts = value if isinstance(value, list) else [value]
    return clean_text(" ".join(text_of(part) for part in parts))


def _categories(record: dict[str, Any]) -> list[str]:
    """Category names without repeats: several paths in 2014, a single one in 2018 and 2023."""
    value = record.get("categories") or record.get("category")
    entries = value if isinstance(value, list) else []
    paths = [entry if isinstance(entry, list) else [entry] for entry in entries]
    return list(dict.fromkeys(name for path in paths for name in path if isinstance(name, str)))
