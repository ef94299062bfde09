"""Fixtures: the study made without faults, random numbers, and the count of faults."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest
from counting import COUNTED, SEED, TIMES, Faults, Row, table
from study import Study, make_study


@pytest.fixture
def faults(request: pytest.FixtureRequest) -> Faults:
    """A generator per test, so that a test draws the same numbers alone as in the whole suite."""
    print(f"APAO_FAULTS_SEED={SEED}")
    return Faults(random.Random(f"{SEED} {request.node.nodeid}"), rows=COUNTED)


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The study made without faults."""
    return make_study(tmp_path_factory.mktemp("faults"))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Send the counts of a pytest-xdist worker to the controller, which prints them."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["faults"] = {kind: vars(row) for kind, row in COUNTED.items()}


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Add the counts of a worker."""
    for kind, counts in getattr(node, "workeroutput", {}).get("faults", {}).items():
        row = COUNTED.setdefault(kind, Row())
        for name, count in counts.items():
            setattr(row, name, getattr(row, name) + count)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the counts, and write them to the file in APAO_FAULTS_REPORT."""
    if not COUNTED:
        return
    lines = table(COUNTED)
    terminalreporter.section(f"faults (APAO_FAULTS={TIMES} APAO_FAULTS_SEED={SEED})")
    terminalreporter.write_line("\n".join(lines))
    if path := os.environ.get("APAO_FAULTS_REPORT"):
        Path(path).write_text("\n".join(lines) + "\n")
