"""The contract every data source keeps.

A source is one entry under ``datasets`` in params.yaml (a parameter model) that can fetch its files
into a folder and read them from there as two tables. Filtering, ids, order and the split are the
same for all and come later (``preprocess``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

import pandas as pd
from pydantic import Field

from apao.data.texts import Texts
from apao.data.times import Clock
from apao.parameters import Model, Registry


@dataclass(frozen=True)
class RawTables:
    """What a source reads from its files.

    Attributes:
        interactions: columns user, item (raw ids as strings) and timestamp (integer; where a source
            has an order but no clock, the position), rows in file order.
        items: columns item (raw id) and one string column for each name in the source's ``text``, of items
            in the interactions; may lack items, has no duplicate ids. None where the source has no item texts.
        malformed: number of records that were skipped, by reason.
        times: what the file's times are.
        decimals: timestamp = time * 10**decimals (for dates, of the seconds since 1970); None where
            timestamps are the ranks of the times.
        unused_rows: rows of the item table whose items are in no interaction.
        unused_examples: up to two ids of theirs.
        notes: what reading did that the user may want to know.
        warnings: what is likely wrong with the files, and what to do.
    """

    interactions: pd.DataFrame
    items: pd.DataFrame | None
    malformed: dict[str, int] = field(default_factory=dict)
    times: str = "seconds since 1970"
    decimals: int | None = 0
    unused_rows: int = 0
    unused_examples: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @classmethod
    def timed(cls, rows: Sequence[tuple[str, str]], clock: Clock) -> Self:
        """The interactions of (user, item) ``rows`` at the times of ``clock``, which had one of each row.

        Raises:
            UserError: when the times are not of one clock.
        """
        interactions = pd.DataFrame(rows, columns=["user", "item"])
        interactions["timestamp"], decimals = clock.integers()
        return cls(interactions, None, times=clock.description, decimals=decimals, warnings=tuple(clock.warnings))

    def with_texts(self, texts: Texts) -> Self:
        """The same with the items' texts."""
        return replace(
            self,
            items=texts.table(),
            unused_rows=texts.unused,
            unused_examples=tuple(texts.unused_examples),
            notes=(*self.notes, *texts.notes),
        )


class Source(Model, ABC):
    """Where a dataset comes from, and which recipe and codes its runs use."""

    source: str
    recipe: str
    """Name of an entry under ``recipes``: model sizes, training and decoding."""
    codes: str
    """Name of an entry under ``codes``."""
    core: Annotated[int, Field(ge=3)] = 5
    """k of the k-core filter; leave-one-out needs three interactions a user."""
    text: tuple[str, ...]
    """Columns of the item table that are embedded, in this order."""
    duplicates: Literal["keep", "drop"] = "keep"
    """Rows with the user, item and timestamp of an earlier row: ``keep`` them, as the paper keeps repeated visits,
    or ``drop`` them before the k-core filter, where an event was recorded twice or a log appended twice."""
    ties: Literal["file", "random"] = "file"
    """Order of a user's interactions with equal timestamps: that of the ``file``, or ``random``, drawn from the ids
    and ``ties_seed``, whatever the order of the file. Where a file is sorted by item and its clock is coarse,
    ``file`` gives histories that ascend by item, which a model learns instead of behaviour."""
    ties_seed: Annotated[int, Field(ge=0, lt=10**9)] = 0
    """Another random order for each value; without effect where ``ties`` is ``file``."""

    publishes_codes: ClassVar[bool] = False
    """Whether the source ships item codes of its own (``published_codes``)."""
    fetched_by: ClassVar[tuple[str, ...]] = ()
    """Fields that decide, beside ``source``, which files are downloaded; the others only matter to ``read``."""
    links: ClassVar[bool] = False
    """Whether ``download`` links to files of the user's own, which are not to be shared with other projects."""
    licence: ClassVar[str] = "Not known. Ask whoever published the data."
    """On which terms the data may be used, in sentences for a model card."""

    @abstractmethod
    def download(self, folder: Path, mirror: Path | None) -> list[str]:
        """Put the source's files into ``folder``, verified; return their names.

        Files that are there and verify are kept, partial ones are continued.

        Raises:
            UserError: when a file cannot be had or does not match, naming it, what was expected and
                the ways out.
        """

    @abstractmethod
    def read(self, folder: Path) -> RawTables:
        """Read the downloaded files.

        Raises:
            UserError: naming file and line, when too many records are malformed.
        """

    def own_files(self) -> tuple[Path, ...]:
        """Files of the user's that the download takes: when they change, so does the dataset."""
        return ()

    def published_codes(self, folder: Path) -> Path:
        """The downloaded file of codes, item id to code strings; only if ``publishes_codes``."""
        raise NotImplementedError


SOURCES: Registry[Source] = Registry("source", "apao.data", tag="source")
