"""The public Amazon 2014 reviews: one category's reviews and item metadata, gzip with one record a line."""

from __future__ import annotations

import ast
import html
import re
import warnings
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pandas as pd
from pydantic import Field

from apao.data.base import SOURCES, RawTables, Source
from apao.data.fetch import Expected, obtain
from apao.data.records import Malformed, identifier, json_object, read_records, text_of

ADDRESS = "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles"

Column = Literal["title", "description", "brand", "categories"]
_LONG_ENTITY = re.compile(r"&#[xX]?[0-9a-fA-F]{100,};?")
_TAG = re.compile(r"</?[A-Za-z!][^<>]*>")


@SOURCES.register
class Amazon(Source):
    """Reviews as interactions; the clock has a resolution of one day.

    ``reviews_<category>_5.json.gz`` (users and items with five reviews) is preferred to the larger
    ``reviews_<category>.json.gz``, which a mirror may hold instead. The publisher gives no hashes.
    """

    source: Literal["amazon"]
    category: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")]
    """As in the file names, such as Office_Products."""
    text: tuple[Column, ...] = ("title", "description", "brand", "categories")
    max_malformed: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Share of malformed lines of a file above which it is refused."""

    fetched_by: ClassVar[tuple[str, ...]] = ("category",)

    @property
    def _reviews(self) -> tuple[str, str]:
        """Names of the file of reviews, the preferred one first."""
        return f"reviews_{self.category}_5.json.gz", f"reviews_{self.category}.json.gz"

    @property
    def _metadata(self) -> str:
        return f"meta_{self.category}.json.gz"

    def download(self, folder: Path, mirror: Path | None) -> list[str]:
        """One file of reviews and the metadata; a file that is there was written whole and is kept."""
        places = [folder] if mirror is None else [folder, mirror]
        found = [name for place in places for name in self._reviews if (place / name).exists()]
        names = [found[0] if found else self._reviews[0], self._metadata]
        for name in names:
            ways_out = (
                f"Ways out: put {name} of the Amazon 2014 data into a folder and name it as the mirror "
                "(--config mirror=DIR, or APAO_MIRROR=DIR), or choose another dataset, such as ml-100k."
            )
            mirrored = None if mirror is None else mirror / name
            obtain(folder / name, Expected(), f"{ADDRESS}/{name}", mirrored, ways_out)
        return names

    def read(self, folder: Path) -> RawTables:
        """Reviews in file order, and the cleaned texts of the items they mention."""
        reviews = next((folder / name for name in self._reviews if (folder / name).exists()), folder / self._reviews[0])
        rows, malformed = read_records(reviews, _review, self.max_malformed)
        interactions = pd.DataFrame(rows, columns=["user", "item", "timestamp"])
        wanted = set(interactions["item"])

        def wanted_item(line: str) -> tuple[str, ...] | None:
            record = _literal(line)
            item = identifier(record, "asin")
            return (item, *(_text(record, column) for column in self.text)) if item in wanted else None

        with warnings.catch_warnings():
            # Texts with a stray backslash are data, not code to be warned about.
            warnings.simplefilter("ignore")
            texts, malformed_items = read_records(folder / self._metadata, wanted_item, self.max_malformed)
        items = pd.DataFrame(texts, columns=["item", *self.text]).drop_duplicates("item")
        return RawTables(interactions, items, malformed | malformed_items)


def _review(line: str) -> tuple[str, str, int]:
    record = json_object(line)
    time = record.get("unixReviewTime")
    if not isinstance(time, int) or isinstance(time, bool) or abs(time) >= 1 << 62:
        raise Malformed("without unixReviewTime in whole seconds")
    return identifier(record, "reviewerID"), identifier(record, "asin"), time


def _literal(line: str) -> dict[str, Any]:
    """A line of metadata: a Python literal of a dictionary, not JSON. Nothing in it is executed."""
    try:
        value = ast.literal_eval(line)
    except (ValueError, TypeError, OverflowError, SyntaxError, MemoryError, RecursionError) as error:
        # MemoryError is how the parser reports too deep a nesting, OverflowError a sum like 10...0+1j.
        raise Malformed("not a Python literal") from error
    if not isinstance(value, dict):
        raise Malformed("not a dictionary")
    return value


def _text(record: dict[str, Any], column: Column) -> str:
    value = record.get(column)
    if column == "categories":
        paths = [path for path in value if isinstance(path, list)] if isinstance(value, list) else []
        names = dict.fromkeys(name for path in paths for name in path if isinstance(name, str))
        value = ", ".join(names)
    return clean_text(text_of(value))


def clean_text(text: str) -> str:
    """Text without HTML entities, tags and line breaks, single-spaced."""
    # No character has so many digits; unescape would refuse to make a number of a few thousand.
    text = _LONG_ENTITY.sub(" ", text)
    return " ".join(_TAG.sub(" ", html.unescape(text)).split())
