"""Values of JSON files that stages wrote and anyone may have edited: each is checked where it is read.

A file without the expected content raises an error that names it. No NaN is ever read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from apao.errors import UserError


def entry(path: Path, data: Any, *keys: str | int) -> Any:
    """``data[key][key]...``.

    Raises:
        UserError: when there is no such entry; ``path`` is the file that ``data`` was read from.
    """
    for i, key in enumerate(keys):
        try:
            data = data[key]
        except (KeyError, IndexError, TypeError) as error:
            raise unexpected(path, keys[: i + 1], "an entry with this name") from error
    return data


def number(path: Path, data: Any, *keys: str | int) -> float:
    """A finite number at ``keys`` of ``data``, which was read from ``path``.

    Raises:
        UserError: when there is no such entry, or it is not a finite number.
    """
    value = entry(path, data, *keys)
    try:
        if type(value) in (int, float) and math.isfinite(value):
            return float(value)
    except OverflowError:  # a whole number of hundreds of digits
        pass
    raise unexpected(path, keys, "a finite number")


def entries(path: Path, data: Any, *keys: str | int) -> list[Any]:
    """The list at ``keys`` of ``data``, which was read from ``path``.

    Raises:
        UserError: when there is no such entry, or it is not a list or empty.
    """
    value = entry(path, data, *keys)
    if not isinstance(value, list) or not value:
        raise unexpected(path, keys, "a list that is not empty")
    return value


def numbers(path: Path, data: Any, *keys: str | int) -> list[float]:
    """The finite numbers of the list at ``keys`` of ``data``, which was read from ``path``.

    Raises:
        UserError: when there is no such list, or one of its entries is not a finite number.
    """
    return [number(path, data, *keys, i) for i in range(len(entries(path, data, *keys)))]


def unexpected(path: Path, keys: Sequence[str | int], expected: str) -> UserError:
    """The error of a file that has something else than ``expected`` at ``keys``."""
    where = ".".join(str(key) for key in keys)
    return UserError(f"{path}: expected {expected} at {where or 'top level'!r}; delete the file and rerun its stage.")
