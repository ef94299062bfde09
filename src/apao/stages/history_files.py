"""Histories that the command line is given: users of the dataset, or a file of many users.

A file is read whole and checked before anything is computed, so a mistake in its last line is found at once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from apao.codes.given import ids_of_list, read_own_parquet
from apao.data.delimited import read_rows
from apao.data.histories import Histories
from apao.errors import UserError
from apao.files import read_table
from apao.study.paths import DatasetPaths


class Known(NamedTuple):
    """Item ids that a history may hold."""

    ids: Container[str]
    example: str

    def check(self, item: str, where: str) -> None:
        """Raise a UserError that names ``where`` for an item that is not in the catalogue."""
        if item not in self.ids:
            raise UserError(f"{where}: unknown item {item!r}; the run's catalogue has ids like {self.example!r}")


class Asked(NamedTuple):
    """Users by name, and the raw item ids of each, oldest first."""

    users: list[str]
    histories: list[list[str]]


def users_of_dataset(paths: DatasetPaths, wanted: Sequence[str], known: Known) -> Asked:
    """Whole histories of users of the dataset, by their raw ids.

    Raises:
        UserError: when a user is unknown, or has an item that the run's catalogue lacks.
    """
    raw_users = pd.Index(read_table(paths.users, ["raw_id"])["raw_id"])
    raw_items = read_table(paths.items, ["raw_id"])["raw_id"].to_numpy()
    numbers = raw_users.get_indexer(pd.Index(wanted))
    if (numbers < 0).any():
        raise UserError(
            f"{paths.users}: has no user {wanted[int(np.argmax(numbers < 0))]!r}, only users whom the filter of the "
            f"dataset kept; its ids are like {raw_users[0]!r}"
        )
    interactions = Histories.load(paths.interactions)
    histories = [raw_items[interactions.rows_of(np.array([number]))[1]].tolist() for number in numbers]
    for user, history in zip(wanted, histories, strict=True):
        for item in history:
            known.check(item, f"user {user!r}")
    return Asked(list(wanted), histories)


def read_histories(path: Path, known: Known) -> Asked:
    """Histories of a file.

    ``.jsonl``: an object per line, ``{"user": "u1", "history": ["i3", "i7"]}``. ``.csv`` and ``.parquet``: columns
    ``user`` and ``item``, a row per item, the rows of a user one after another; oldest first.

    Raises:
        UserError: naming file and line or row, for what is none, an empty history or an unknown item.
    """
    if path.suffix not in READERS:
        raise UserError(f"{path}: expected a file that ends in {', '.join(READERS)}")
    if not path.is_file():
        raise UserError(f"{path}: not found; name an existing file of histories")
    asked = Asked([], [])
    seen: set[str] = set()
    spelled: dict[str, str] = {}
    for user, items, where in READERS[path.suffix](path):
        if user in seen:
            raise UserError(f"{where(0)}: user {user!r} has rows further up; put all rows of a user together")
        if not items:
            raise UserError(f"{where(0)}: the history of user {user!r} is empty; expected at least one item id")
        for place, item in enumerate(items):
            known.check(item, where(place))
        seen.add(user)
        asked.users.append(user)
        # Items recur: each id is kept once.
        asked.histories.append([spelled.setdefault(item, item) for item in items])
    if not asked.users:
        raise UserError(f"{path}: holds no histories")
    return asked


Read = tuple[str, list[str], Callable[[int], str]]
"""User, items, and where in the file the item of a place stands."""


def _json_lines(path: Path) -> Iterator[Read]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield _json_history(line, f"{path}:{number}")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 ({error.reason}); save it as UTF-8") from error


def _json_history(line: str, where: str) -> Read:
    try:
        record: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not valid JSON ({error})") from error
    if not isinstance(record, dict) or not {"user", "history"} <= record.keys():
        raise UserError(f'{where}: expected an object like {{"user": "u1", "history": ["i3", "i7"]}}')
    (user,) = ids_of_list([record["user"]], f"{where}: user")
    return user, ids_of_list(record["history"], f"{where}: history"), lambda place: where


def _csv(path: Path) -> Iterator[Read]:
    rows = read_rows(path, ",", ("user", "item"))
    return _grouped(((user, item, line) for line, (user, item) in rows), f"{path}:")


def _parquet(path: Path) -> Iterator[Read]:
    (users, _), (items, _) = (read_own_parquet(path, name) for name in ("user", "item"))
    return _grouped(zip(users, items, range(len(users)), strict=True), f"{path}: row ")


def _grouped(rows: Iterable[tuple[str, str, int]], before: str) -> Iterator[Read]:
    """Neighbouring rows (user, item, line) of one user as one history."""
    for user, group in groupby(rows, key=itemgetter(0)):
        _, items, lines = zip(*group, strict=True)
        for item, line in zip(items, lines, strict=True):
            if not user or not item:
                raise UserError(f"{before}{line}: expected a user and an item, found {user!r} and {item!r}")
        yield user, list(items), partial(_place, before, lines)


def _place(before: str, lines: Sequence[int], place: int) -> str:
    return f"{before}{lines[place]}"


READERS: dict[str, Callable[[Path], Iterator[Read]]] = {".jsonl": _json_lines, ".csv": _csv, ".parquet": _parquet}
"""By the end of the file's name."""
