"""Counts of the faults of each kind, tried and survived."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

TIMES = int(os.environ.get("APAO_FAULTS", "1"))
"""Faults per kind and stage: 1 by default, 10 for docs/operations/reliability.md."""
SEED = int(os.environ.setdefault("APAO_FAULTS_SEED", str(random.SystemRandom().randrange(1_000_000))))
"""Seed, in the environment so that parallel test processes share it."""


@dataclass
class Row:
    """Counts of one kind of fault."""

    tried: int = 0
    survived: int = 0
    lost: int = 0


@dataclass
class Faults:
    """Counts faults by kind; ``random`` draws their moments."""

    random: random.Random
    times: int = TIMES
    rows: dict[str, Row] = field(default_factory=dict)

    @contextmanager
    def of(self, kind: str) -> Iterator[Row]:
        """Count the faults tried in the block; they count as survived if it ends without an error."""
        row = self.rows.setdefault(kind, Row())
        before = row.tried
        yield row
        row.survived += row.tried - before


def table(rows: dict[str, Row]) -> list[str]:
    """The counts as a Markdown table."""
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
