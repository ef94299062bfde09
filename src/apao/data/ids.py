"""Ids read from tables: strips surrounding blanks and refuses two spellings of one id."""

from __future__ import annotations

import re
from pathlib import Path

from apao.errors import UserError

_DECIMAL = re.compile(r"(-?[0-9]+)\.0+")
_SCIENTIFIC = re.compile(r"-?[0-9](?:\.[0-9]+[eE]\+?|[eE]\+)[0-9]{2}")
_MISSING = ("nan", "NaN", "None", "none", "null", "NULL", "<NA>")
_REMEDY = "write them without .0 (in pandas: astype('Int64') before to_csv)"


class Ids:
    """The ids of one column of one file, with the line of each one's first occurrence."""

    def __init__(self, what: str, path: Path) -> None:
        """``what`` is ``user`` or ``item``, for messages."""
        self.what, self.path = what, path
        self._lines: dict[str, int] = {}
        self._stripped, self._first_stripped = 0, 0

    def __contains__(self, given: object) -> bool:
        return given in self._lines

    def line_of(self, given: str) -> int:
        """Line of an id's first occurrence."""
        return self._lines[given]

    def read(self, text: str, line: int) -> str:
        """Record an id and return it without surrounding blanks.

        Raises:
            UserError: naming the line, when the id is empty.
        """
        given = text.strip()
        if not given:
            raise UserError(f"{self.path}:{line}: the {self.what} id is empty")
        if given != text:
            self._stripped += 1
            self._first_stripped = self._first_stripped or line
        self._lines.setdefault(given, line)
        return given

    @property
    def notes(self) -> list[str]:
        """Note about stripped blanks, if there were any."""
        if not self._stripped:
            return []
        return [
            f"blanks around {self.what} ids removed ({self._stripped} such, first {self.path}:{self._first_stripped})"
        ]

    @property
    def warnings(self) -> list[str]:
        """Warnings about ids that are probably missing values or rounded numbers."""
        found = [
            f"{self.path}:{self._lines[word]}: the {self.what} id {word!r} often stands for a missing value, and all "
            f"such rows would count as one {self.what}; if it does, remove these rows"
            for word in _MISSING
            if word in self._lines
        ]
        cut = [given for given in self._lines if _SCIENTIFIC.fullmatch(given)]
        if cut:
            found.append(
                f"{self.path}:{self._lines[cut[0]]}: {len(cut)} {self.what} ids like {cut[0]!r} are in scientific "
                "notation, in which different ids can look the same; export the column as text"
            )
        return found

    def check_spelling(self, others: Ids | None = None) -> None:
        """Refuse ``101.0`` together with ``101``, in this file or between it and ``others``, ids of another file.

        Whole numbers get a decimal point when a column is stored as floats, as pandas does if a value is missing.

        Raises:
            UserError: with the ids and their lines.
        """
        for ids, other in ((self, self), *([(self, others), (others, self)] if others else [])):
            pairs = [(given, match[1]) for given in ids._lines if (match := _DECIMAL.fullmatch(given))]
            clashes = [(given, plain) for given, plain in pairs if plain in other]
            if clashes:
                (given, plain), *more = clashes
                another = f"; another of {len(clashes)} is {more[0][0]!r}, there {more[0][1]!r}" if more else ""
                raise UserError(
                    f"{ids.path}:{ids.line_of(given)}: the {self.what} id {given!r} is {plain!r} in {other.path}:"
                    f"{other.line_of(plain)}{another}. Ids that were stored as decimal numbers match no others: "
                    f"{_REMEDY}"
                )
