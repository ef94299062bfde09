"""Processor time from the start of the command line to its first useful moment."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from apao.errors import UserError

# Run by a new interpreter in place of the `apao` command. Ends where the first training step would begin.
UNTIL_THE_FIRST_STEP = """
import os, sys, time
from apao import cli
from apao.training.loop import Training

def step(self, batch, sums):
    print(time.process_time(), flush=True)
    os._exit(0)

Training.step = step
cli.main()
"""
HELP = """
import atexit, time
from apao import cli
atexit.register(lambda: print(time.process_time()))
cli.main()
"""


def measured(run: str, repeats: int) -> dict[str, Any]:
    """Seconds of ``apao --help`` and of ``apao train RUN`` until its first step: median, lowest and highest.

    The dataset must be prepared in the current folder; nothing is written there.
    """
    found: dict[str, Any] = {"run": run, "repeats": repeats}
    with TemporaryDirectory() as folder:
        for name in ("params.yaml", "tuned.yaml", "data"):
            (Path(folder) / name).symlink_to(Path(name).resolve())
        for name, script, arguments in (
            ("help", HELP, ["--help"]),
            ("first step", UNTIL_THE_FIRST_STEP, ["train", run, "--device", "cpu"]),
        ):
            command = [sys.executable, "-c", script, *arguments]
            # The first is not counted: it may have to compile modules.
            seconds = [_seconds(command, folder) for _ in range(1 + repeats)][1:]
            found[name] = [round(f(seconds), 2) for f in (median, min, max)]
    return found


def _seconds(command: list[str], folder: str) -> float:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"{' '.join(command[3:])}: {done.stderr.strip().splitlines()[-1]}")
    return float(json.loads(done.stdout.splitlines()[-1]))
