"""The undisturbed study, the random numbers, and the count of faults."""

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
    """Each test draws from numbers of its own, so that one alone draws what it drew among all."""
    print(f"APAO_FAULTS_SEED={SEED}")
    return Faults(random.Random(f"{SEED} {request.node.nodeid}"), rows=COUNTED)


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Made without disturbance."""
    return make_study(tmp_path_factory.mktemp("faults"))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A process of pytest-xdist hands its counts to the one that prints them."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["faults"] = {kind: vars(row) for kind, row in COUNTED.items()}


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take them."""
    for kind, counts in getattr(node, "workeroutput", {}).get("faults", {}).items():
        row = COUNTED.setdefault(kind, Row())
        for name, count in counts.items():
            setattr(row, name, getattr(row, name) + count)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the counts, and write them where APAO_FAULTS_REPORT says."""
    if not COUNTED:
        return
    lines = table(COUNTED)
    terminalreporter.section(f"faults (APAO_FAULTS={TIMES} APAO_FAULTS_SEED={SEED})")
    terminalreporter.write_line("\n".join(lines))
    if path := os.environ.get("APAO_FAULTS_REPORT"):
        Path(path).write_text("\n".join(lines) + "\n")
