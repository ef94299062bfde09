"""The catalogue's code table and its vocabulary.

Shapes: I items, U distinct codes, T levels, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from string import ascii_lowercase

import numpy as np
import pandas as pd

from apao.codes.vocabulary import PAD, SPECIAL_TOKENS, code_string, parse_code_string
from apao.data.histories import IntArray
from apao.errors import UserError
from apao.files import read_table


def parsed_codes(table: Mapping[str, object], source: str) -> IntArray:
    """Codes (I, T) from a mapping of item id to token strings, rows in its order.

    Raises:
        UserError: when a token is malformed or the codes differ in length; names ``source`` and the item.
    """
    rows: list[list[int]] = []
    for item, strings in table.items():
        if not isinstance(strings, list | tuple) or not all(isinstance(token, str) for token in strings):
            raise UserError(f'{source}: item {item!r}: expected tokens like ["<a_1>", "<b_2>"], found {strings!r}')
        if len(strings) > len(ascii_lowercase):
            raise UserError(f"{source}: item {item!r} has {len(strings)} tokens; expected 1 to {len(ascii_lowercase)}")
        try:
            rows.append([parse_code_string(text, level) for level, text in enumerate(strings)])
        except ValueError as error:
            raise UserError(f"{source}: item {item!r}: {error}") from error
        if len(rows[-1]) != len(rows[0]):
            first = next(iter(table))
            raise UserError(
                f"{source}: item {item!r} has {len(rows[-1])} tokens, item {first!r} has {len(rows[0])}; "
                "expected codes of the same length"
            )
    if not rows or not rows[0]:
        raise UserError(f"{source}: contains no codes")
    return np.array(rows, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class ItemCodes:
    """The code of every item: ``codes`` (I, T) with values from 0.

    Number of levels, sizes and vocabulary are derived from the table; no other module assumes a T.
    Token ids are pad 0, eos 1, unk 2, then from 3 the token strings that occur, sorted as strings, so the ids of one
    level are contiguous.
    """

    codes: IntArray
    _unique: tuple[IntArray, IntArray] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.codes.ndim != 2 or 0 in self.codes.shape or self.codes.shape[1] > len(ascii_lowercase):
            raise ValueError(f"codes must have shape (items, levels) with 1 to 26 levels; got {self.codes.shape}")
        if self.codes.min() < 0:
            raise ValueError("codes must not be negative")
        distinct, index = np.unique(self.codes, axis=0, return_inverse=True)
        object.__setattr__(self, "_unique", (distinct, index.reshape(-1)))

    @classmethod
    def from_strings(cls, table: Mapping[str, Sequence[str]], source: str) -> ItemCodes:
        """Parse the release's format: a mapping of item number as a string ("0", "1", ...) to token strings.

        Raises:
            UserError: when an item is missing or a token malformed; names ``source`` and the item.
        """
        items = [str(item) for item in range(len(table))]
        for item in items:
            if item not in table:
                raise UserError(f"{source}: item {item} has no code; expected ids 0 to {len(table) - 1}")
        return cls(parsed_codes({item: table[item] for item in items}, source))

    @property
    def items(self) -> int:
        """Number of items I."""
        return self.codes.shape[0]

    @property
    def levels(self) -> int:
        """Number of levels T."""
        return self.codes.shape[1]

    @property
    def distinct(self) -> IntArray:
        """Distinct codes (U, T), in lexicographic order."""
        return self._unique[0]

    @property
    def code_of_item(self) -> IntArray:
        """Index (I,) of each item's code in ``distinct``."""
        return self._unique[1]

    @cached_property
    def items_per_code(self) -> IntArray:
        """Number of items (U,) of each distinct code."""
        return np.bincount(self.code_of_item, minlength=len(self.distinct))

    @cached_property
    def vocabulary(self) -> tuple[str, ...]:
        """Token strings by id."""
        used = {
            code_string(level, int(code)) for level in range(self.levels) for code in np.unique(self.codes[:, level])
        }
        return SPECIAL_TOKENS + tuple(sorted(used))

    @cached_property
    def tokens(self) -> IntArray:
        """Token ids (I, T) of every item's code."""
        return self._to_tokens(self.codes)

    @cached_property
    def padded_tokens(self) -> IntArray:
        """(I + 1, T) ``tokens``, and a last row of padding, which the index -1 finds."""
        return np.vstack([self.tokens, np.full((1, self.levels), PAD)])

    @cached_property
    def distinct_tokens(self) -> IntArray:
        """Token ids (U, T) of the distinct codes, rows as in ``distinct``."""
        return self._to_tokens(self.distinct)

    def _to_tokens(self, codes: IntArray) -> IntArray:
        id_of = {token: i for i, token in enumerate(self.vocabulary)}
        columns = []
        for level in range(self.levels):
            values, inverse = np.unique(codes[:, level], return_inverse=True)
            ids = np.array([id_of[code_string(level, int(value))] for value in values], dtype=np.int64)
            columns.append(ids[inverse])
        return np.stack(columns, axis=1)

    @property
    def level_names(self) -> tuple[str, ...]:
        """Columns of the codes in tables: ``level_1`` .. ``level_T``."""
        return tuple(f"level_{level + 1}" for level in range(self.levels))

    def write(self, path: Path) -> None:
        """Write the parquet table item, level_1 .. level_T."""
        table = pd.DataFrame(self.codes, columns=list(self.level_names))
        table.insert(0, "item", np.arange(self.items))
        table.to_parquet(path, index=False)

    @classmethod
    def read(cls, path: Path) -> ItemCodes:
        """Read a table written by ``write``.

        Raises:
            UserError: when the file is missing, damaged, or not such a table.
        """
        table = read_table(path, what="table of item codes")
        try:
            levels = [f"level_{level + 1}" for level in range(table.shape[1] - 1)]
            if list(table.columns) != ["item", *levels] or (table["item"] != np.arange(len(table))).any():
                raise ValueError("expected the columns item (0, 1, 2, ...) and level_1, level_2, ...")
            return cls(table[levels].to_numpy(dtype=np.int64))
        except (ValueError, TypeError, OverflowError) as error:
            raise UserError(
                f"{path}: not a table of item codes ({error}); delete it and run its stage again"
            ) from error
