"""MovieLens-1M in the publisher's own format: ``ratings.dat`` and ``movies.dat``, alone or in ``ml-1m.zip``."""

from __future__ import annotations

import lzma
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

from apao.data.base import SOURCES, RawTables, Source
from apao.data.delimited import undecodable_line
from apao.data.fetch import Expected, copy, obtain, ways_out
from apao.data.ids import Ids
from apao.data.texts import Texts
from apao.data.times import Clock
from apao.errors import UserError
from apao.files import atomic_path, missing

ARCHIVE, ADDRESS = "ml-1m.zip", "https://files.grouplens.org/datasets/movielens/ml-1m.zip"
RATINGS, FILMS = "ratings.dat", "movies.dat"
SEPARATOR = "::"
MAX_MEMBER_BYTES = 1 << 27
WAYS_OUT = ways_out(f"{ARCHIVE}, or {RATINGS} and {FILMS} from it,")
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    KeyError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    OSError,
)
"""What ``zipfile`` raises for an archive that is damaged or another one."""
_YEAR = re.compile(r"(.*) \(([0-9]{4})\)")


@SOURCES.register
class MovieLens1M(Source):
    """1,000,209 ratings of 3,706 films by 6,040 users, 2000 to 2003; every rating is an interaction.

    Many ratings of a user have the same second, so ``ties`` matters. The publisher's hash is not checked.
    """

    source: Literal["ml-1m"]
    text: tuple[Literal["title", "year", "genres"], ...] = ("title", "year", "genres")

    licence: ClassVar[str] = (
        "MovieLens-1M of GroupLens, University of Minnesota: for research, to be acknowledged in publications "
        "(Harper and Konstan 2015); neither redistribution nor commercial use without permission."
    )

    def download(self, folder: Path, mirror: Path | None) -> list[str]:
        """Obtain the two files from the mirror (the files or the archive), else the archive from its publisher."""
        absent = [name for name in (RATINGS, FILMS) if not (folder / name).exists()]
        if mirror is not None:
            for name in [name for name in absent if (mirror / name).exists()]:
                copy(mirror / name, folder / name, Expected(), WAYS_OUT)
                absent.remove(name)
        if absent:
            archive = folder / ARCHIVE
            obtain(archive, Expected(), ADDRESS, None if mirror is None else mirror / ARCHIVE, WAYS_OUT)
            _extract(archive, absent, folder)
            archive.unlink()
        return [RATINGS, FILMS]

    def read(self, folder: Path) -> RawTables:
        """Ratings in file order, which is by user and not chronological."""
        path = folder / RATINGS
        users, items, clock = Ids("user", path), Ids("item", path), Clock(path)
        rows = []
        for line, (user, item, _, time) in _rows(path, 4, "ascii"):
            rows.append((users.read(user, line), items.read(item, line)))
            clock.add(time, line)
        texts = Texts(self.text, items)
        # The publisher's encoding.
        for _, (item, title, genres) in _rows(folder / FILMS, 3, "latin-1"):
            dated = _YEAR.fullmatch(title)
            name, year = dated.groups() if dated else (title, "")
            found = {"title": name, "year": year, "genres": genres.replace("|", " ")}
            texts.add(item, [found[column] for column in self.text])
        return RawTables.timed(rows, clock).with_texts(texts)


def _rows(path: Path, values: int, encoding: str) -> Iterator[tuple[int, list[str]]]:
    """Line number and values of every row; blank lines are skipped."""
    try:
        with path.open(encoding=encoding, newline="\n") as file:
            for number, text in enumerate(file, start=1):
                row = text.rstrip("\r\n").split(SEPARATOR)
                if len(row) == values:
                    yield number, row
                elif text.strip():
                    raise UserError(
                        f"{path}:{number}: {len(row)} values separated by {SEPARATOR}, expected {values}; delete the "
                        "file and download it again"
                    )
    except FileNotFoundError as error:
        raise missing(path) from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}:{undecodable_line(path, encoding)}: not {encoding} ({error.reason}); delete the file and "
            "download it again"
        ) from error


def _extract(archive: Path, names: list[str], folder: Path) -> None:
    """Extract the named files of the archive's only folder."""
    try:
        with zipfile.ZipFile(archive) as opened:
            for name in names:
                with opened.open(f"ml-1m/{name}") as member, atomic_path(folder / name) as temporary:
                    content = member.read(MAX_MEMBER_BYTES + 1)
                    if len(content) > MAX_MEMBER_BYTES:
                        raise UserError(f"{archive}: ml-1m/{name} is larger than {MAX_MEMBER_BYTES} bytes. {WAYS_OUT}")
                    temporary.write_bytes(content)
    except _DAMAGED as error:
        archive.unlink(missing_ok=True)
        reason = str(error).strip("'\"") or "it ends early"
        raise UserError(f"{archive}: not the expected archive ({reason}). {WAYS_OUT}") from error
