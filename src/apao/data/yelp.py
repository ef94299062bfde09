"""The Yelp dataset, which the user downloads after accepting its licence."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pandas as pd
from pydantic import Field

from apao.data.base import SOURCES, RawTables, Source
from apao.data.fetch import link
from apao.data.records import Malformed, identifier, json_object, read_records, text_of
from apao.errors import UserError

REVIEWS = "yelp_academic_dataset_review.json"
BUSINESSES = "yelp_academic_dataset_business.json"


@SOURCES.register
class Yelp(Source):
    """Reviews as interactions, businesses as items; repeated visits are kept."""

    source: Literal["yelp"]
    folder: Path
    """Where the two files are; they are linked to, not copied."""
    since: date = date(2019, 1, 1)
    """Earlier reviews are left out."""
    text: tuple[Literal["title", "categories"], ...] = ("title", "categories")
    max_malformed: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Share of malformed lines of a file above which it is refused."""

    fetched_by: ClassVar[tuple[str, ...]] = ("folder",)
    links: ClassVar[bool] = True

    def download(self, folder: Path, mirror: Path | None) -> list[str]:
        """Link to the two files of the user's own folder, else of the mirror."""
        origin = self.folder.expanduser()
        if not origin.is_dir() and mirror is not None and (mirror / REVIEWS).exists():
            origin = mirror
        for name in (REVIEWS, BUSINESSES):
            if not (origin / name).is_file():
                raise UserError(
                    f"{origin / name}: not found. Download the Yelp Open Dataset (JSON) from "
                    "https://www.yelp.com/dataset, where its licence has to be accepted, "
                    "unpack it, and name the folder in the key folder of the dataset's entry in params.yaml."
                )
            link(origin / name, folder / name)
        return [REVIEWS, BUSINESSES]

    def read(self, folder: Path) -> RawTables:
        """Reviews since the given day in file order, and name and categories of the businesses in them."""
        # A few million reviews repeat far fewer ids: keep each string once.
        known: dict[str, str] = {}

        def review(line: str) -> tuple[str, str, int] | None:
            record = json_object(line)
            user, item = identifier(record, "user_id"), identifier(record, "business_id")
            time = _time(record)
            if time.date() < self.since:
                return None
            return known.setdefault(user, user), known.setdefault(item, item), int(time.timestamp())

        def business(line: str) -> tuple[str, ...] | None:
            record = json_object(line)
            item = identifier(record, "business_id")
            texts = [record.get("name" if column == "title" else column) for column in self.text]
            return (item, *map(text_of, texts)) if item in known else None

        rows, malformed = read_records(folder / REVIEWS, review, self.max_malformed)
        texts, malformed_items = read_records(folder / BUSINESSES, business, self.max_malformed)
        items = pd.DataFrame(texts, columns=["item", *self.text]).drop_duplicates("item")
        return RawTables(pd.DataFrame(rows, columns=["user", "item", "timestamp"]), items, malformed | malformed_items)


def _time(record: dict[str, Any]) -> datetime:
    value = record.get("date")
    try:
        return datetime.fromisoformat(value).replace(tzinfo=UTC)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise Malformed("without a date like 2019-01-31 12:00:00") from error
