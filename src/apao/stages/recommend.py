"""The command ``recommend``: recommendations of a trained run for users, histories, or a file of many users."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from apao.codes.given import read_lines
from apao.errors import UserError
from apao.progress import console, progress, warn
from apao.stages.history_files import Asked, Known, history_of, read_histories, users_of_dataset
from apao.stages.list_files import format_of, opened
from apao.stages.load import load
from apao.stages.named import run_folder
from apao.stages.recommender import Recommender
from apao.study.paths import DatasetPaths

AT_ONCE = 4096
"""Histories per block that is computed and written."""
NAMED = 5
"""Maximum number of items that a warning names."""


@dataclass(frozen=True)
class Wanted:
    """The histories to recommend for; exactly one attribute is set."""

    users: Sequence[str] = ()
    """Raw ids of users of the dataset."""
    histories: Sequence[str] = ()
    """Comma-separated item ids, one string per history."""
    file: Path | None = None
    """File with the histories of many users."""


@dataclass(frozen=True)
class How:
    """The options of ``Recommender.recommend``; ``only`` and ``without`` are files of item ids."""

    k: int = 20
    beam: int | None = None
    exact: bool = False
    keep_seen: bool = False
    only: Path | None = None
    without: Path | None = None


def recommend(
    run: str,
    wanted: Wanted,
    how: How,
    output_format: str | None = None,
    output: Path | None = None,
    new_items: Path | None = None,
    device: str = "auto",
) -> None:
    """Print or write the recommended items for each history.

    Args:
        run: name or folder of a run.
        wanted: the histories.
        how: length of the lists, search, and part of the catalogue.
        output_format: table, json, csv or parquet. None: according to the name of ``output``, or table.
        output: file to write. None: the terminal.
        new_items: table of items that are not in the training data (``apao codes --items``).
        device: auto, cpu or cuda.

    Raises:
        UserError: for an unknown run, user or item (names the file and line), an empty history, or a ``k`` larger
            than the catalogue.
    """
    name = format_of(output_format, output)
    if sum(map(bool, (wanted.users, wanted.histories, wanted.file))) != 1:
        raise UserError("expected exactly one of --user ID, --history ID,ID,... and --file FILE")
    model = load(run_folder(run), device, new_items)
    known = Known.of(model.catalogue)
    asked = _asked(wanted, model, known)
    only, without = (None if file is None else _listed(file, known) for file in (how.only, how.without))
    _warn_of_untrained(model, asked)
    codes = model.reachable_codes(only, without)
    without_items = incomplete = 0
    # On a terminal the bar's unfinished line would stand before the first lines of the table.
    shown = output is not None or not sys.stdout.isatty()
    bar = progress(f"recommend with {model.trained.run}", len(asked.users)) if shown else nullcontext(lambda _: None)
    with opened(name, output) as writer, bar as advance:
        for begin in range(0, len(asked.users), AT_ONCE):
            part = asked.histories[begin : begin + AT_ONCE]
            found = model.recommend(part, how.k, how.beam, how.exact, how.keep_seen, only, without)
            lengths = found["history"].value_counts()
            without_items += len(part) - len(lengths)
            incomplete += len(part) - int((lengths == how.k).sum())
            users = [asked.users[begin + number] for number in found.pop("history")]
            found.insert(0, "user", users)
            writer.write(found)
            advance(len(part))
    if incomplete and how.beam is not None and how.beam < codes:
        warn(
            f"{incomplete:,} of {len(asked.users):,} histories get fewer than {how.k} items, "
            f"{without_items:,} none: a beam of {how.beam} finds no more; raise --beam, or leave it out"
        )
    elif without_items:
        warn(
            f"{without_items:,} of {len(asked.users):,} histories get no item: all that is allowed is in them "
            "(--keep-seen recommends it again)"
        )
    if output is not None:
        console.print(str(output))


def _asked(wanted: Wanted, model: Recommender, known: Known) -> Asked:
    if wanted.file is not None:
        return read_histories(wanted.file, known)
    if wanted.users:
        return users_of_dataset(
            DatasetPaths(model.trained.run.dataset, model.root), list(dict.fromkeys(wanted.users)), known
        )
    histories = [history_of(text, known) for text in wanted.histories]
    return Asked([str(number) for number in range(1, len(histories) + 1)], histories)


def _listed(file: Path, known: Known) -> list[str]:
    """Item ids of a file with one per line."""
    if not file.is_file():
        raise UserError(f"{file}: not found; name a file with one item id per line")
    ids = read_lines(file)
    for line, item in enumerate(ids, 1):
        known.check(item, f"{file}:{line}")
    if not ids:
        raise UserError(f"{file}: contains no item ids; expected one per line")
    return ids


def _warn_of_untrained(model: Recommender, asked: Asked) -> None:
    """Warn about items that occur in no training history: the model knows only the tokens of their codes."""
    table = model.catalogue
    items = list({item for history in asked.histories for item in history})
    untrained = sorted(
        item for item, number in zip(items, table.numbers(items), strict=True) if not table.train_counts[number]
    )
    if untrained:
        more = f" and {len(untrained) - NAMED} more" if len(untrained) > NAMED else ""
        named = ", ".join(map(repr, untrained[:NAMED]))
        warn(f"{named}{more} not in the training data; the model knows only the tokens of their codes")
