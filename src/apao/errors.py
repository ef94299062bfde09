"""The one exception a user is meant to read."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LONGEST = 2_000
"""Characters of a message: its start says where, its end what to do."""


class UserError(Exception):
    """Something the user can put right; the command line prints it without a traceback.

    The message names the file (and line), key or run, what was expected, and what to do. It is one line,
    whatever it quotes of a file.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


def one_line(text: str) -> str:
    """``text`` without the middle of what is very long; what a terminal would obey is spelled out."""
    if len(text) > LONGEST:
        text = f"{text[: LONGEST // 2]} [...] {text[-LONGEST // 2 :]}"
    return "".join(each if each.isprintable() else " " if each == "\n" else ascii(each)[1:-1] for each in text)


class AtKey(ValueError):
    """A mistake at a key below the one whose validation found it; ``params`` turns it into file, line and key."""

    def __init__(self, message: str, *key: str | int) -> None:
        super().__init__(message)
        self.key = key


def nearest(word: str, known: Iterable[str]) -> str:
    """End of a sentence that helps with a misspelt name: the closest known one and the list."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}known: {', '.join(names) if names else 'none'}"
