"""Commands in separate processes: run, wait, signal, kill, limit memory."""

from __future__ import annotations

import io
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import psutil

from apao.cli import main
from apao.errors import UserError

BIN = Path(sys.executable).parent
SECONDS = 1800
"""Time limit in seconds, far above the duration of any command of the tests, so that a hang is a failure."""


@dataclass
class Done:
    """A command that has ended, by itself or by a signal (a negative status)."""

    status: int
    output: str
    seconds: float = 0.0

    @property
    def killed(self) -> bool:
        return self.status == -signal.SIGKILL

    @property
    def errors(self) -> list[str]:
        """The error lines of the output."""
        return [line for line in self.output.splitlines() if line.lower().startswith("error")]


class Running:
    """A running command. Its output goes to a file, so that it never blocks."""

    def __init__(self, folder: Path, command: tuple[str, ...], environment: Mapping[str, str]) -> None:
        self._log = NamedTemporaryFile("r")  # noqa: SIM115 - open as long as this is
        with open(self._log.name, "a") as log:
            # In its own session, as from a terminal, so that a signal to the group reaches all its children.
            self._process = subprocess.Popen(
                command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        self.pid = self._process.pid

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def printed(self) -> str:
        """The output so far."""
        self._log.seek(0)
        return self._log.read()

    def wait_for(self, condition: Callable[[], object], seconds: float = SECONDS) -> None:
        """Return as soon as ``condition`` holds; fails if the command ends before that, or on a timeout."""
        deadline = time.monotonic() + seconds
        while not condition():
            if self.ended or time.monotonic() > deadline:
                self.kill_all()
                raise AssertionError(f"{self._process.args} ended or hung:\n{self.printed()}")
            time.sleep(0.002)

    def end(self, timeout: float = SECONDS) -> Done:
        """Wait until it ends."""
        try:
            status = self._process.wait(timeout)
        except BaseException:
            self.kill_all()
            raise
        return Done(status, self.printed())

    def send(self, how: signal.Signals) -> None:
        """Send a signal to this process alone."""
        self._process.send_signal(how)

    def send_all(self, how: signal.Signals) -> None:
        """Send a signal to this process and its descendants, as Ctrl-C at a terminal does."""
        os.killpg(self.pid, how)

    def children(self) -> list[psutil.Process]:
        """All descendants."""
        return psutil.Process(self.pid).children(recursive=True)

    def kill_all(self) -> bool:
        """Kill this process and its descendants at once; returns whether there was something to kill."""
        if self.ended:
            return False
        parent = psutil.Process(self.pid)
        # Stopped first, so that none reacts to the end of another.
        parent.suspend()
        for one in [parent, *parent.children(recursive=True)]:
            one.kill()
        self._process.wait()
        return True


def environment(**more: str) -> dict[str, str]:
    """Environment variables as after ``source .venv/bin/activate``, without those of apao."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("APAO_")}
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    return {**kept, "PATH": path, "COLUMNS": "200", **more}


def start(folder: Path, *command: str, **more: str) -> Running:
    """Start a command of the environment in ``folder``."""
    return Running(folder, command, environment(**more))


def run(folder: Path, *command: str, timeout: float = SECONDS, **more: str) -> Done:
    """Run a command to its end."""
    return start(folder, *command, **more).end(timeout)


def run_here(folder: Path, *arguments: str) -> Done:
    """Run ``apao`` in this process, which has imported torch already."""
    output, argv, status = io.StringIO(), sys.argv, 0
    sys.argv = ["apao", *arguments]
    try:
        with chdir(folder), redirect_stdout(output), redirect_stderr(output):
            main()
    except SystemExit as stopped:
        status = stopped.code or 0
    finally:
        sys.argv = argv
    return Done(status, output.getvalue())


@contextmanager
def ctrl_c_heeded() -> Iterator[None]:
    """Restore the default reaction to Ctrl-C, which processes started in the background by a shell ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def bounded(action: Callable[[], Any], megabytes: int = 1024, seconds: int = 20) -> str:
    """Call a function in a fork with a limit on additional memory and on processor time; returns the outcome.

    Returns:
        ``done``, ``UserError: ...`` or a traceback.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        outcome = "done"
        try:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            limit = pages * resource.getpagesize() + (megabytes << 20)
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
            action()
        except UserError as error:
            outcome = f"UserError: {error}"
        except BaseException:
            outcome = traceback.format_exc()
        finally:
            with suppress(OSError):
                os.write(writer, outcome.encode(errors="backslashreplace")[-60_000:])
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    return said if status == 0 else f"died of signal {status & 127} (the processor's time was up, or memory)"
