"""Histories for the command line: those of users of the dataset, or of a file with many users.

A file is read and checked completely before anything is computed, so that errors are reported at once.
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

from apao.codes.given import ids_of_column, ids_of_list, read_parquet
from apao.codes.items import ItemTable
from apao.data.delimited import read_rows
from apao.data.histories import Histories
from apao.errors import UserError
from apao.files import read_table
from apao.stages.named import Users
from apao.study.paths import DatasetPaths


class Known(NamedTuple):
    """Item ids of the catalogue, with one of them as an example for messages."""

    ids: Container[str]
    example: str

    @classmethod
    def of(cls, catalogue: ItemTable) -> Known:
        """The ids of a run's catalogue."""
        return cls(frozenset(catalogue.raw_ids), catalogue.raw_ids[0])

    def check(self, item: str, where: str) -> None:
        """Check that an item is in the catalogue; ``where`` is its place for the message.

        Raises:
            UserError: when it is not.
        """
        if item not in self.ids:
            raise UserError(f"{where}: unknown item {item!r}; the run's catalogue has ids like {self.example!r}")


class Asked(NamedTuple):
    """Names of users, and the raw item ids of their histories, oldest first."""

    users: list[str]
    histories: list[list[str]]


def history_of(text: str, known: Known) -> list[str]:
    """The item ids of a value of ``--history``.

    Raises:
        UserError: when it has none, or an unknown one.
    """
    history = [item for part in text.split(",") if (item := part.strip())]
    if not history:
        raise UserError(f"--history {text!r}: expected comma-separated item ids")
    for item in history:
        known.check(item, "--history")
    return history


def users_of_dataset(paths: DatasetPaths, wanted: Sequence[str], known: Known) -> Asked:
    """Complete histories of users of the dataset, given by their raw ids.

    Raises:
        UserError: when a user is unknown, or an item is not in the run's catalogue.
    """
    numbers = Users.read(paths).numbers(wanted)
    raw_items = read_table(paths.items, ["raw_id"])["raw_id"].to_numpy()
    interactions = Histories.load(paths.interactions)
    histories = [raw_items[interactions.rows_of(np.array([number]))[1]].tolist() for number in numbers]
    for user, history in zip(wanted, histories, strict=True):
        for item in history:
            known.check(item, f"user {user!r}")
    return Asked(list(wanted), histories)


def read_histories(path: Path, known: Known) -> Asked:
    """Read the histories in a file.

    ``.jsonl``: one object per line, ``{"user": "u1", "history": ["i3", "i7"]}``. ``.csv`` and ``.parquet``: columns
    ``user`` and ``item``, one row per item, the rows of a user contiguous. Items are in order, the oldest first.

    Raises:
        UserError: for a malformed or empty history, or an unknown item; names the file and the line or row.
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
            raise UserError(f"{where(0)}: user {user!r} also has earlier rows; put all rows of a user together")
        if not items:
            raise UserError(f"{where(0)}: the history of user {user!r} is empty; expected at least one item id")
        for place, item in enumerate(items):
            known.check(item, where(place))
        seen.add(user)
        asked.users.append(user)
        # Items recur: keep one copy of each string.
        asked.histories.append([spelled.setdefault(item, item) for item in items])
    if not asked.users:
        raise UserError(f"{path}: contains no histories")
    return asked


Read = tuple[str, list[str], Callable[[int], str]]
"""User, items, and a function from an item's index to its place in the file, for messages."""


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
    table = read_parquet(path)
    users, items = (ids_of_column(path, table, f"{name} ids", name) for name in ("user", "item"))
    return _grouped(zip(users, items, range(len(users)), strict=True), f"{path}: row ")


def _grouped(rows: Iterable[tuple[str, str, int]], before: str) -> Iterator[Read]:
    """Group consecutive rows (user, item, line) of a user into one history."""
    for user, group in groupby(rows, key=itemgetter(0)):
        _, items, lines = zip(*group, strict=True)
        for item, line in zip(items, lines, strict=True):
            if not user or not item:
                raise UserError(f"{before}{line}: expected a user and an item, found {user!r} and {item!r}")
        yield user, list(items), partial(_place, before, lines)


def _place(before: str, lines: Sequence[int], place: int) -> str:
    return f"{before}{lines[place]}"


READERS: dict[str, Callable[[Path], Iterator[Read]]] = {".jsonl": _json_lines, ".csv": _csv, ".parquet": _parquet}
"""Readers by the suffix of the file."""
