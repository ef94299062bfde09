"""The Yelp Open Dataset, which the user downloads after accepting its licence."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from typing_extensions import override

from apao.data.base import SOURCES, RawTables, Source
from apao.data.fetch import link
from apao.data.records import date_of, identifier, json_object, read_records, text_of
from apao.data.texts import Texts
from apao.data.times import Clock, parse_time
from apao.errors import UserError

REVIEWS = "yelp_academic_dataset_review.json"
BUSINESSES = "yelp_academic_dataset_business.json"


@SOURCES.register
class Yelp(Source):
    """Reviews as interactions, businesses as items; repeated visits are kept."""

    source: Literal["yelp"]
    folder: Path
    """Folder of the two files, which are linked to, not copied."""
    since: date = date(2019, 1, 1)
    """Date of the first reviews to use; earlier ones are skipped."""
    text: tuple[Literal["title", "categories"], ...] = ("title", "categories")
    max_malformed: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Largest accepted share of malformed lines per file."""

    fetched_by: ClassVar[tuple[str, ...]] = ("folder",)
    links: ClassVar[bool] = True
    licence: ClassVar[str] = (
        "Yelp Open Dataset, under the agreement that whoever downloads it accepts (https://www.yelp.com/dataset)."
    )

    def download(self, folder: Path, mirror: Path | None) -> list[str]:
        """Link to the two files in the user's folder, or in the mirror if there is no such folder."""
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

    @override
    def own_files(self) -> tuple[Path, ...]:
        """The files in the user's folder; none if they are in a mirror."""
        paths = (self.folder.expanduser() / name for name in (REVIEWS, BUSINESSES))
        return tuple(path for path in paths if path.is_file())

    def read(self, folder: Path) -> RawTables:
        """Reviews since the given day in file order, and name and categories of the reviewed businesses."""
        # A few million reviews share far fewer ids: keep one copy of each string.
        known: dict[str, str] = {}
        wanted: set[str] = set()
        clock = Clock(folder / REVIEWS)
        since = parse_time(self.since.isoformat()).value
        earlier = 0

        def review(text: str, line: int) -> tuple[str, str] | None:
            nonlocal earlier
            record = json_object(text)
            user, item = identifier(record, "user_id"), identifier(record, "business_id")
            time = date_of(record, "2019-01-31 12:00:00")
            if time.value < since * 10**time.decimals:
                earlier += 1
                return None
            clock.append(time, record["date"], line)
            wanted.add(item)
            return known.setdefault(user, user), known.setdefault(item, item)

        rows, malformed = read_records(folder / REVIEWS, review, self.max_malformed)
        found = RawTables.timed(rows, clock)
        texts = Texts(self.text, wanted)

        def business(text: str, _: int) -> None:
            record = json_object(text)
            item = identifier(record, "business_id")
            texts.add(item, [text_of(record.get("name" if column == "title" else column)) for column in self.text])

        _, malformed_items = read_records(folder / BUSINESSES, business, self.max_malformed)
        notes = (f"{earlier:,} reviews before {self.since} skipped (key since)",) if earlier else ()
        return replace(found, malformed=malformed | malformed_items, notes=notes).with_texts(texts)
