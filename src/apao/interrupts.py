"""Ctrl-C, remembered.

A compiled library that is reading a file when Ctrl-C comes may swallow the ``KeyboardInterrupt`` and raise
an error of its own in its place (safetensors: "could not determine the shape of object type"), which would
be told to the user as a crash or as a damaged file. Whoever reports an error asks here first.
"""

from __future__ import annotations

import signal
from types import FrameType
from typing import NoReturn

_seen: list[int] = []  # no lock: what a signal runs may itself be interrupted


def remember() -> None:
    """From now on Ctrl-C raises ``KeyboardInterrupt``, as ever, and is remembered."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell may have had it ignored
        signal.signal(signal.SIGINT, _interrupt)


def came() -> bool:
    """Whether Ctrl-C has come since :func:`remember`."""
    return bool(_seen)


def ignore() -> None:
    """From now on Ctrl-C does nothing: the command has ended, and a traceback of the interpreter's end says nothing."""
    if signal.getsignal(signal.SIGINT) is _interrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    _seen.append(number)
    signal.default_int_handler(number, frame)
