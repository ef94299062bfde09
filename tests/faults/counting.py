"""How many faults of each kind were tried, and what became of them."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

TIMES = int(os.environ.get("APAO_FAULTS", "1"))
"""Faults of each kind and stage; 1 in the ordinary test run, 10 in that of docs/operations/reliability.md."""
SEED = int(os.environ.setdefault("APAO_FAULTS_SEED", str(random.SystemRandom().randrange(1_000_000))))
"""In the environment, so that processes which run tests side by side have the same one."""


@dataclass
class Row:
    """What became of the faults of one kind."""

    tried: int = 0
    survived: int = 0
    lost: int = 0


@dataclass
class Faults:
    """Counts faults by kind; ``random`` draws the moments."""

    random: random.Random
    times: int = TIMES
    rows: dict[str, Row] = field(default_factory=dict)

    @contextmanager
    def of(self, kind: str) -> Iterator[Row]:
        """Count what the block tries; all that it tried is survived if it ends well."""
        row = self.rows.setdefault(kind, Row())
        before = row.tried
        yield row
        row.survived += row.tried - before


def table(rows: dict[str, Row]) -> list[str]:
    """Markdown."""
    total = Row(*(sum(getattr(row, name) for row in rows.values()) for name in ("tried", "survived", "lost")))
    return [
        "| fault | tried | survived | data lost |",
        "| --- | ---: | ---: | ---: |",
        *(
            f"| {kind} | {row.tried} | {row.survived} | {row.lost} |"
            for kind, row in [*rows.items(), ("**all**", total)]
        ),
    ]


COUNTED: dict[str, Row] = {}
