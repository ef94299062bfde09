"""Errors that the user can correct, reported in one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LONGEST = 2_000
"""Maximum characters of a message. The middle is cut: the start names the place, the end what to do."""


class UserError(Exception):
    """An error that the user can correct; the command line prints it without a traceback.

    The message names the file (and line), key or run, what was expected, and what to do. It is always one line,
    even where it quotes the content of a file.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class Diverged(UserError):
    """A training whose loss is not finite. Other hyper-parameters may work, so a search goes on."""


def one_line(text: str) -> str:
    """``text`` in one line of at most about ``LONGEST`` characters, with control characters escaped."""
    if len(text) > LONGEST:
        text = f"{text[: LONGEST // 2]} [...] {text[-LONGEST // 2 :]}"
    return "".join(map(_printable, text))


def first_line(error: Exception) -> str:
    """First line of an exception's message, or its class."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _printable(char: str) -> str:
    """``char``, or its escape sequence as plain text, which a terminal does not interpret."""
    if char.isprintable():
        return char
    return " " if char == "\n" else ascii(char)[1:-1]


class AtKey(ValueError):
    """A validation error at ``key``, relative to the value being validated.

    ``study.params`` converts it into a UserError with file, line and full key.
    """

    def __init__(self, message: str, *key: str | int) -> None:
        super().__init__(message)
        self.key = key


def nearest(word: str, known: Iterable[str]) -> str:
    """End of an error message about an unknown name: the closest known name, and the list of all."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}known: {', '.join(names) if names else 'none'}"
