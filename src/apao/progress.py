"""Progress with an ETA: a bar on a terminal, a line every 15 seconds in a log file."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
SECONDS_BETWEEN_LINES = 15.0


def warn(text: str) -> None:
    """Print a warning, one line, on standard error."""
    console.print(f"warning: {text}", style="yellow")


class Advance(Protocol):
    """Callback that reports progress."""

    def __call__(self, amount: float = 1, shown: str = "") -> None:
        """Add ``amount`` to what is done; ``shown`` is a text to print beside it."""


@contextmanager
def progress(what: str, total: float, done: float = 0) -> Iterator[Advance]:
    """Show the progress of ``what`` from ``done`` to ``total`` (any unit), with an ETA, on standard error."""
    if console.is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[shown]}"),
        )
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(what, total=total, completed=int(done), shown="")

            def advance_bar(amount: float = 1, shown: str = "") -> None:
                bar.advance(task, amount)
                if shown:
                    bar.update(task, shown=shown)

            yield advance_bar
        return

    started = last = time.monotonic()
    reached = done

    def advance_line(amount: float = 1, shown: str = "") -> None:
        nonlocal reached, last
        reached += amount
        now = time.monotonic()
        if now - last < SECONDS_BETWEEN_LINES:
            return
        last = now
        so_far = f"{reached:,.0f}"
        if total:
            # The last batch of an epoch may be larger than what was left of it.
            left = (now - started) / max(reached - done, 1e-9) * max(0, total - reached)
            so_far += f" of {total:,.0f}, {left:,.0f} s left"
        console.print(f"{what}: {so_far} {shown}".rstrip())

    yield advance_line
