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
    metadata_record,
    review,
    reviews_format,
)
from apao.data.base import SOURCES, RawTables, Source
from apao.data.fetch import Expected, obtain
from apao.data.records import identifier, json_object, read_records
from apao.data.texts import Texts
from apao.data.times import Clock

ADDRESS = "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles"
REVIEWS = ("reviews_{}_5.json.gz", "reviews_{}.json.gz", "{}_5.json.gz", "{}.json.gz", "{}.jsonl.gz", "{}.jsonl")
"""Names of the file of reviews, the preferred one first: those of 2014, 2018 and 2023."""
METADATA = ("meta_{}.json.gz", "meta_{}.jsonl.gz", "meta_{}.jsonl")


@SOURCES.register
class Amazon(Source):
    """Reviews as interactions; until 2018 the clock has a resolution of one day.

    The files of 2014 are fetched, ``reviews_<category>_5.json.gz`` (users and items with five reviews) and the
    metadata. A mirror may hold the larger ``reviews_<category>.json.gz`` instead, or the files of 2018 or 2023
    under their own names or those of 2014: the content says what they are. The publisher gives no hashes.
    """

    source: Literal["amazon"]
    category: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")]
    """As in the file names, such as Office_Products."""
    text: tuple[Column, ...] = ("title", "description", "brand", "categories")
    max_malformed: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Share of malformed lines of a file above which it is refused."""

    fetched_by: ClassVar[tuple[str, ...]] = ("category",)
    licence: ClassVar[str] = (
        "Amazon reviews as collected and published for research by McAuley et al., who state no licence; the texts are "
        "their authors'."
    )

    def download(self, folder: Path, mirror: Path | None) -> list[str]:
        """One file of reviews and the metadata; a file that is there was written whole and is kept."""
        places = [folder] if mirror is None else [folder, mirror]
        names = [self._found(names, places) for names in (REVIEWS, METADATA)]
        for name in names:
            ways_out = (
                f"Ways out: put {name} of the Amazon 2014 data into a folder and name it as the mirror "
                "(--config mirror=DIR, or APAO_MIRROR=DIR), or choose another dataset, such as ml-100k."
            )
            mirrored = None if mirror is None else mirror / name
            obtain(folder / name, Expected(), f"{ADDRESS}/{name}", mirrored, ways_out)
        return names

    def _found(self, names: tuple[str, ...], places: list[Path]) -> str:
        """The first name under which a file is in one of the places, else the name to ask the publisher for."""
        spelled = [name.format(self.category) for name in names]
        return next((name for place in places for name in spelled if (place / name).exists()), spelled[0])

    def read(self, folder: Path) -> RawTables:
        """Reviews in file order, and the cleaned texts of the items they mention."""
        path, listed = (folder / self._found(names, [folder]) for names in (REVIEWS, METADATA))
        forms, clock = (reviews_format(path), metadata_format(listed)), Clock(path)
        # Millions of reviews repeat far fewer ids: keep each string once.
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
            record = metadata_record(text)
            item = identifier(record, forms[1].of(record, line))
            texts.add(item, [item_text(record, column) if item in wanted else "" for column in self.text])

        with warnings.catch_warnings():
            # Texts with a stray backslash are data, not code to be warned about.
            warnings.simplefilter("ignore")
            _, malformed_items = read_records(listed, one_item, self.max_malformed)
        check_same(*forms)
        notes = tuple(form.note for form in forms if form.item_key)
        return replace(found, malformed=malformed | malformed_items, notes=notes).with_texts(texts)
