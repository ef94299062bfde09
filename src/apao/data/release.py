"""The four datasets of the paper in the authors' release: preprocessed, with item codes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import pandas as pd
from pydantic import Field, Strict, TypeAdapter, ValidationError, model_validator

from apao.data.base import SOURCES, RawTables, Source
from apao.data.fetch import Expected, obtain, ways_out
from apao.data.records import text_of
from apao.data.texts import Texts
from apao.errors import UserError
from apao.files import read_json
from apao.parameters import first_mistake, spelled
from apao.progress import console

T = TypeVar("T")

REPOSITORY = "yuyq18/APAO"
COMMIT = "aa08fcfab4ad306a536a1fde648042972a292bbe"
ADDRESS = f"https://raw.githubusercontent.com/{REPOSITORY}/{COMMIT}"

# Of two files only the git blob is known.
FILES = {
    "data/Office/Office.inter.json": Expected(
        799708, "10f983c76de3d2443ae68bf50bc6231962ab493f4d08c7e716e2f183ae70d698"
    ),
    "data/Office/Office.item.json": Expected(
        2417410, "df013666416847d0f3468f08d9f68877faf251f71b51247050e98da5b705b5c7"
    ),
    "data/Office/Office.index.rq-kmeans.json": Expected(
        120271, "6c06fd85972bfa297f66e9597057fa6797886d1483e3f0aaed7be87fb7ddd1f9"
    ),
    "data/Grocery/Grocery.inter.json": Expected(
        2347096, "62c210e03bf86775a847faf8c9850c5cda7eeafa6cd5854900e5b78407b538b9"
    ),
    "data/Grocery/Grocery.item.json": Expected(git_blob="ec85487a284e14962a3e80bcd8a06edda12d0ca0"),
    "data/Grocery/Grocery.index.rq-kmeans.json": Expected(
        445130, "4ed40e0ed6da04146c3611070008513546bdb1dd99111b5b2ed0bf065d046906"
    ),
    "data/Beauty/Beauty.inter.json": Expected(
        3212008, "8809584b8b78fa6561771c88911ed65bd716fc9926fca1e581e6a1ab578ccfd5"
    ),
    "data/Beauty/Beauty.item.json": Expected(git_blob="098205baf4a483b818507dc98c4b9bc9151a69f0"),
    "data/Beauty/Beauty.index.rq-kmeans.json": Expected(
        625198, "75ec4c78aba505cec7503a5e5ada1f2eee4ebfa7eefb5a0988978677b4089aea"
    ),
    "data/Yelp/Yelp.inter.json": Expected(5117807, "22069fef8afd1d53fe9e0aaa385a6c93f7b43e43574fb10f5f5155fa2c869a97"),
    "data/Yelp/Yelp.item.json": Expected(2673394, "8f58a9d54111fc10ccd675f99e6f2afe988cd0ee70b40f1e37d04f9aea764c2d"),
    "data/Yelp/Yelp.index.rq-kmeans.json": Expected(
        1042345, "f7c751f8a21087c3e6d7d6f5706e891af2811b3431f905bc64a5e4d8d2606c30"
    ),
}

POSITIONS = "positions in the released histories"

Column = Literal["title", "description", "brand", "categories"]

_HISTORIES = TypeAdapter(dict[str, list[Annotated[int, Strict(), Field(ge=0, lt=1 << 31)]]])
_TEXTS = TypeAdapter(dict[str, dict[str, Any]])


def _read(path: Path, kind: TypeAdapter[T]) -> T:
    try:
        return kind.validate_python(read_json(path))
    except ValidationError as error:
        raise UserError(f"{path}: {spelled(*first_mistake(error))}; delete it and download it again") from error


@SOURCES.register
class Release(Source):
    """Histories in time order without times: the timestamp of an interaction is its position.

    The release numbers users and items by first appearance, user by user, so our numbering reproduces the released
    ids, which are the keys of the released codes. The files are already 5-core.
    """

    source: Literal["release"]
    name: Literal["Office", "Grocery", "Beauty", "Yelp"]
    text: tuple[Column, ...] = ("title", "description", "brand", "categories")

    publishes_codes: ClassVar[bool] = True
    fetched_by: ClassVar[tuple[str, ...]] = ("name",)
    licence: ClassVar[str] = (
        "Released by the authors of the APAO paper, who state no licence for the data, from Amazon reviews (McAuley et "
        "al.) and the Yelp Open Dataset, whose terms apply."
    )

    @model_validator(mode="after")
    def _columns_exist(self) -> Release:
        if self.name == "Yelp" and not set(self.text) <= {"title", "description"}:
            raise ValueError("text: the Yelp release has the columns title and description only; name those")
        return self

    @property
    def _interactions(self) -> str:
        return f"{self.name}.inter.json"

    @property
    def _items(self) -> str:
        return f"{self.name}.item.json"

    @property
    def _codes(self) -> str:
        return f"{self.name}.index.rq-kmeans.json"

    def download(self, folder: Path, mirror: Path | None) -> list[str]:
        """Obtain interactions, codes and item texts; nothing is fetched if the mirror has any of them.

        A mirror without the item texts is enough for runs on the published codes.
        """
        names = (self._interactions, self._codes, self._items)
        in_repository = {name: f"data/{self.name}/{name}" for name in names}
        has_some = mirror is not None and any((mirror / path).exists() for path in in_repository.values())
        downloaded = []
        for name, path in in_repository.items():
            mirrored = None if mirror is None else mirror / path
            here = (folder / name).exists() or (mirrored is not None and mirrored.exists())
            if has_some and not here:
                if name != self._items:
                    raise UserError(f"{mirrored}: not found, though the mirror has other files of {self.name}")
                console.print(
                    f"{self.name}: the mirror has no {path}, so the items have no texts; published codes need none"
                )
                continue
            instead = ways_out(f"the file {path} of github.com/{REPOSITORY} at commit {COMMIT}, under that path,")
            obtain(folder / name, FILES[path], f"{ADDRESS}/{path}", mirrored, instead)
            downloaded.append(name)
        return downloaded

    def read(self, folder: Path) -> RawTables:
        """Histories and item texts as released (including HTML entities); no texts if they were not downloaded."""
        histories = _read(folder / self._interactions, _HISTORIES)
        rows = [(user, str(item), position) for user, items in histories.items() for position, item in enumerate(items)]
        interactions = pd.DataFrame(rows, columns=["user", "item", "timestamp"])
        found = RawTables(interactions, None, times=POSITIONS, clocked=False)
        if not (folder / self._items).exists():
            return found
        texts = Texts(self.text, frozenset(interactions["item"]))
        for item, fields in _read(folder / self._items, _TEXTS).items():
            texts.add(item, [text_of(fields.get(column)) for column in self.text])
        return found.with_texts(texts)

    def published_codes(self, folder: Path) -> Path:
        """The released RQ-K-means codes."""
        return folder / self._codes
