"""The public Amazon reviews: one category's reviews and item metadata, gzip with one record per line."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from apao.data.amazon_formats import (
    Column,
    check_same,
    item_text,
    metadata_format,
    review,
    reviews_format,
)
from apao.data.base import SOURCES, RawTables, Source
from apao.data.fetch import Expected, obtain, ways_out
from apao.data.records import identifier, json_object, literal_object, read_records
from apao.data.texts import Texts
from apao.data.times import Clock

ADDRESS = "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles"
REVIEWS = ("reviews_{}_5.json.gz", "reviews_{}.json.gz", "{}_5.json.gz", "{}.json.gz", "{}.jsonl.gz", "{}.jsonl")
"""Names of the review file in the versions of 2014, 2018 and 2023, in order of preference."""
METADATA = ("meta_{}.json.gz", "meta_{}.jsonl.gz", "meta_{}.jsonl")


@SOURCES.register
class Amazon(Source):
    """Reviews as interactions; timestamps up to the version of 2018 have a resolution of one day.

    Fetches the files of 2014: ``reviews_<category>_5.json.gz`` (users and items with at least five reviews) and the
    metadata. A mirror may hold the larger ``reviews_<category>.json.gz`` instead, or the files of 2018 or 2023
    under their own names or those of 2014; the version is detected from the content. The publisher gives no hashes.
    """

    source: Literal["amazon"]
    category: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")]
    """Category as spelled in the file names, such as Office_Products."""
    text: tuple[Column, ...] = ("title", "description", "brand", "categories")
    max_malformed: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Largest accepted share of malformed lines per file."""

    fetched_by: ClassVar[tuple[str, ...]] = ("category",)
    licence: ClassVar[str] = (
        "Amazon reviews as collected and published for research by McAuley et al., who state no licence; the texts are "
        "their authors'."
    )

    def download(self, folder: Path, mirror: Path | None) -> list[str]:
        """Fetch one file of reviews and the metadata; files already in ``folder`` are complete and are kept."""
        places = [folder] if mirror is None else [folder, mirror]
        names = [self._file_name(names, places) for names in (REVIEWS, METADATA)]
        for name in names:
            mirrored = None if mirror is None else mirror / name
            instead = ways_out(f"{name} of the Amazon 2014 data")
            obtain(folder / name, Expected(), f"{ADDRESS}/{name}", mirrored, instead)
        return names

    def _file_name(self, names: tuple[str, ...], places: list[Path]) -> str:
        """The first of ``names`` that exists in one of the places, else the publisher's name."""
        spelled = [name.format(self.category) for name in names]
        return next((name for place in places for name in spelled if (place / name).exists()), spelled[0])

    def read(self, folder: Path) -> RawTables:
        """Reviews in file order, and the cleaned texts of the items they mention."""
        path, listed = (folder / self._file_name(names, [folder]) for names in (REVIEWS, METADATA))
        forms, clock = (reviews_format(path), metadata_format(listed)), Clock(path)
        # Millions of reviews share far fewer ids: keep one copy of each string.
        known: dict[str, str] = {}
        wanted: set[str] = set()

        def one_review(text: str, line: int) -> tuple[str, str]:
            record = json_object(text)
            user, item, time = review(record, forms[0].of(record, line))
            clock.append(time, str(time.value), line)
            wanted.add(item)
            return known.setdefault(user, user), known.setdefault(item, item)

        rows, malformed = read_records(path, one_review, self.max_malformed)
        found = RawTables.timed(rows, clock)
        texts = Texts(self.text, wanted)

        def one_item(text: str, line: int) -> None:
            record = literal_object(text)
            item = identifier(record, forms[1].of(record, line))
            texts.add(item, [item_text(record, column) if item in wanted else "" for column in self.text])

        with warnings.catch_warnings():
            # literal_eval would warn about a stray backslash in a text.
            warnings.simplefilter("ignore")
            _, malformed_items = read_records(listed, one_item, self.max_malformed)
        check_same(*forms)
        notes = tuple(form.note for form in forms if form.item_key)
        return replace(found, malformed=malformed | malformed_items, notes=notes).with_texts(texts)
