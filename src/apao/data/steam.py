"""Reviews of games on Steam, gzip with one Python literal (or JSON object) per line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from apao.data.base import SOURCES, RawTables, Source
from apao.data.fetch import Expected, obtain, ways_out
from apao.data.records import clean_text, date_of, identifier, literal_object, read_records, text_of
from apao.data.texts import Texts
from apao.data.times import Clock

ADDRESS = "https://cseweb.ucsd.edu/~wckang"
REVIEWS, GAMES = "steam_reviews.json.gz", "steam_games.json.gz"
KEYS = {"title": ("title", "app_name"), "genres": ("genres",), "tags": ("tags",), "developer": ("developer",)}
"""Keys of each text column; the first that a game has."""


@SOURCES.register
class Steam(Source):
    """Reviews as interactions (Kang and McAuley 2018), games as items; the times have a resolution of one day.

    Users are told apart by ``username``, as in that paper. The publisher gives no hashes.
    """

    source: Literal["steam"]
    text: tuple[Literal["title", "genres", "tags", "developer"], ...] = ("title", "genres", "tags")
    max_malformed: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Largest accepted share of malformed lines per file."""

    licence: ClassVar[str] = (
        "Steam reviews as collected and published for research by Kang and McAuley, who state no licence; the texts "
        "are their authors'."
    )

    def download(self, folder: Path, mirror: Path | None) -> list[str]:
        """Fetch the reviews (1.3 GB) and the games; files already in ``folder`` are complete and are kept."""
        for name in (REVIEWS, GAMES):
            mirrored = None if mirror is None else mirror / name
            obtain(folder / name, Expected(), f"{ADDRESS}/{name}", mirrored, ways_out(name))
        return [REVIEWS, GAMES]

    def read(self, folder: Path) -> RawTables:
        """Reviews in file order, and the texts of the reviewed games."""
        # Millions of reviews share far fewer ids: keep one copy of each string.
        known: dict[str, str] = {}
        wanted: set[str] = set()
        clock = Clock(folder / REVIEWS)

        def review(text: str, line: int) -> tuple[str, str]:
            record = literal_object(text)
            user, item = identifier(record, "username"), identifier(record, "product_id")
            clock.append(date_of(record, "2019-01-31"), record["date"], line)
            wanted.add(item)
            return known.setdefault(user, user), known.setdefault(item, item)

        rows, malformed = read_records(folder / REVIEWS, review, self.max_malformed)
        found = RawTables.timed(rows, clock)
        texts = Texts(self.text, wanted)

        def game(text: str, _: int) -> None:
            record = literal_object(text)
            # Some games have no id; their reviews refer to none either.
            if record.get("id") is not None:
                texts.add(identifier(record, "id"), [_text(record, column) for column in self.text])

        _, malformed_games = read_records(folder / GAMES, game, self.max_malformed)
        return replace(found, malformed=malformed | malformed_games).with_texts(texts)


def _text(record: dict[str, Any], column: str) -> str:
    value = next((record[key] for key in KEYS[column] if record.get(key)), None)
    parts = value if isinstance(value, list) else [value]
    return clean_text(", ".join(filter(None, map(text_of, parts))))
