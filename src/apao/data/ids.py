"""Ids as tables write them: blanks around them removed, and two spellings of one id refused."""

from __future__ import annotations

import re
from pathlib import Path

from apao.errors import UserError

_DECIMAL = re.compile(r"(-?[0-9]+)\.0+")
_SCIENTIFIC = re.compile(r"-?[0-9]\.[0-9]+[eE]\+?[0-9]{2}")
_MISSING = ("nan", "NaN", "None", "none", "null", "NULL", "<NA>")
_MENDING = "write them without .0 (in pandas: astype('Int64') before to_csv)"


class Ids:
    """The ids in one column of one file, with the line where each was first seen."""

    def __init__(self, what: str, path: Path) -> None:
        """``what``: user or item, for messages."""
        self.what, self.path = what, path
        self._lines: dict[str, int] = {}
        self._stripped, self._first_stripped = 0, 0

    def __contains__(self, given: object) -> bool:
        return given in self._lines

    def line_of(self, given: str) -> int:
        """Where an id was first seen."""
        return self._lines[given]

    def read(self, text: str, line: int) -> str:
        """An id as it is written, without blanks around it.

        Raises:
            UserError: naming the line, when it is empty.
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
        """What was done to them."""
        if not self._stripped:
            return []
        return [
            f"blanks around {self.what} ids removed ({self._stripped} such, first {self.path}:{self._first_stripped})"
        ]

    @property
    def warnings(self) -> list[str]:
        """Ids that are likely none."""
        found = [
            f"{self.path}:{self._lines[word]}: the {self.what} id {word!r} is how programs write a missing value, and "
            f"all such rows would be one {self.what}; if so, remove these rows"
            for word in _MISSING
            if word in self._lines
        ]
        cut = [given for given in self._lines if _SCIENTIFIC.fullmatch(given)]
        if cut:
            found.append(
                f"{self.path}:{self._lines[cut[0]]}: {len(cut)} {self.what} ids like {cut[0]!r} are in scientific "
                "notation, which can write different ids alike; export the column as text"
            )
        return found

    def check_spelling(self, others: Ids | None = None) -> None:
        """Refuse ``101.0`` beside ``101``, here and against ``others``, the same ids in another file.

        A column of whole numbers gets the point when it passes through floats, as pandas has them where a value
        is missing.

        Raises:
            UserError: with the ids and their lines.
        """
        for one, other in ((self, self), *([(self, others), (others, self)] if others else [])):
            pairs = [(given, match[1]) for given in one._lines if (match := _DECIMAL.fullmatch(given))]
            clashes = [(given, plain) for given, plain in pairs if plain in other]
            if clashes:
                (given, plain), *more = clashes
                another = f"; another of {len(clashes)} is {more[0][0]!r}, there {more[0][1]!r}" if more else ""
                raise UserError(
                    f"{one.path}:{one.line_of(given)}: the {self.what} id {given!r} is {plain!r} in {other.path}:"
                    f"{other.line_of(plain)}{another}. Ids that passed through decimal numbers match no others: "
                    f"{_MENDING}"
                )
