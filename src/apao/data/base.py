"""The contract of a data source.

A source is one entry under ``datasets`` in params.yaml (a parameter model) that fetches its files into a folder and
reads them from there as two tables. Filtering, numbering, order and split are the same for all sources and follow in
``preprocess``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

import pandas as pd
from pydantic import Field

from apao.data.split import Rule
from apao.data.texts import Texts
from apao.data.times import Clock
from apao.parameters import Model, Registry


@dataclass(frozen=True)
class RawTables:
    """The tables that a source reads from its files.

    Attributes:
        interactions: columns user, item (raw ids as strings) and timestamp (integer; the position if the
            source has an order but no clock), rows in file order.
        items: columns item (raw id) and one string column per name in the source's ``text``, for items of the
            interactions; ids are unique, items may be missing. None if the source has no item texts.
        malformed: number of skipped records by reason.
        times: kind and unit of the file's times.
        clocked: whether the timestamps of different users can be compared.
        decimals: timestamp = time * 10**decimals (dates count in seconds since 1970); None if the timestamps
            are ranks of the times.
        unused_rows: number of rows of the item table whose items are in no interaction.
        unused_examples: up to two ids of such rows.
        notes: remarks for the user about how the files were read.
        warnings: likely faults of the files, with what to do.
    """

    interactions: pd.DataFrame
    items: pd.DataFrame | None
    malformed: dict[str, int] = field(default_factory=dict)
    times: str = "seconds since 1970"
    clocked: bool = True
    decimals: int | None = 0
    unused_rows: int = 0
    unused_examples: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @classmethod
    def timed(cls, rows: Sequence[tuple[str, str]], clock: Clock) -> Self:
        """Tables with (user, item) ``rows`` as interactions and the times of ``clock``, one per row in the same order.

        Raises:
            UserError: when the times have no common unit.
        """
        interactions = pd.DataFrame(rows, columns=["user", "item"])
        interactions["timestamp"], decimals = clock.integers()
        return cls(interactions, None, times=clock.description, decimals=decimals, warnings=tuple(clock.warnings))

    def with_texts(self, texts: Texts) -> Self:
        """Copy with the items' texts."""
        return replace(
            self,
            items=texts.table(),
            unused_rows=texts.unused,
            unused_examples=tuple(texts.unused_examples),
            notes=(*self.notes, *texts.notes),
        )


class Source(Model, ABC):
    """Origin of a dataset, and the recipe and codes of its runs."""

    source: str
    recipe: str
    """Name of an entry under ``recipes``: model sizes, training and decoding."""
    codes: str
    """Name of an entry under ``codes``."""
    core: Annotated[int, Field(ge=3)] = 5
    """k of the k-core filter; leave-one-out needs three interactions per user."""
    split: Rule = "leave-one-out"
    """``leave-one-out``: each user's last interaction is the test item, the one before it the validation item, as in
    the paper. ``time``: the first 80 % of all interactions in time train, the next 10 % are the period of validation
    and the last 10 % that of the test; a user's target is the first interaction in a period."""
    text: tuple[str, ...]
    """Columns of the item table to embed, in this order."""
    duplicates: Literal["keep", "drop"] = "keep"
    """Treatment of rows that repeat the user, item and timestamp of an earlier row: ``keep`` them, as the paper
    keeps repeated visits, or ``drop`` them before the k-core filter, if events were logged twice."""
    ties: Literal["file", "random"] = "file"
    """Order of a user's interactions with equal timestamps: that of the ``file``, or ``random``, which depends on
    the ids and ``ties_seed`` but not on the order of the file. If a file is sorted by item and its clock is coarse,
    ``file`` gives histories that ascend by item, which a model learns instead of behaviour."""
    ties_seed: Annotated[int, Field(ge=0, lt=10**9)] = 0
    """Seed of the random order; no effect if ``ties`` is ``file``."""

    publishes_codes: ClassVar[bool] = False
    """Whether the source ships item codes (``published_codes``)."""
    fetched_by: ClassVar[tuple[str, ...]] = ()
    """Fields that determine, together with ``source``, which files are downloaded; ``read`` uses the others."""
    links: ClassVar[bool] = False
    """Whether ``download`` links to the user's own files, which must not enter a shared cache."""
    licence: ClassVar[str] = "Not known. Ask whoever published the data."
    """Terms of use of the data, in sentences for the model card of an exported run."""

    @abstractmethod
    def download(self, folder: Path, mirror: Path | None) -> list[str]:
        """Put the source's files into ``folder``, verify them, and return their names.

        Valid files already there are kept, partial downloads are resumed.

        Args:
            folder: target folder, created if necessary.
            mirror: folder with copies of the files, or None.

        Raises:
            UserError: when a file cannot be obtained or does not match; the message names the file, what was
                expected, and the ways out.
        """

    @abstractmethod
    def read(self, folder: Path) -> RawTables:
        """Read the downloaded files.

        Raises:
            UserError: naming file and line, when too many records are malformed.
        """

    def own_files(self) -> tuple[Path, ...]:
        """The user's own files that the download links to; the dataset changes when they do."""
        return ()

    def published_codes(self, folder: Path) -> Path:
        """Path of the downloaded codes (item id to code strings); only if ``publishes_codes``."""
        raise NotImplementedError


SOURCES: Registry[Source] = Registry("source", "apao.data", tag="source")
