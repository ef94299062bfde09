"""Commands in processes of their own: run one, wait for what it does, signal it, kill it, bound its memory."""

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
"""Far more than any command of the tests takes; a hang fails instead of blocking."""


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
        """The lines that say what went wrong."""
        return [line for line in self.output.splitlines() if line.lower().startswith("error")]


class Running:
    """A command that has been started. What it prints goes to a file: it never waits for a reader."""

    def __init__(self, folder: Path, command: tuple[str, ...], environment: Mapping[str, str]) -> None:
        self._log = NamedTemporaryFile("r")  # noqa: SIM115 - open as long as this is
        with open(self._log.name, "a") as log:
            # A session of its own, as a terminal starts it: a signal to the group reaches all that it started.
            self._process = subprocess.Popen(
                command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        self.pid = self._process.pid

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def printed(self) -> str:
        """All it has printed until now."""
        self._log.seek(0)
        return self._log.read()

    def wait_for(self, condition: Callable[[], object], seconds: float = SECONDS) -> None:
        """Return as soon as ``condition`` holds; fails if the command ends before, or nothing comes of it in time."""
        deadline = time.monotonic() + seconds
        while not condition():
            if self.ended or time.monotonic() > deadline:
                self.kill_all()
                raise AssertionError(f"{self._process.args} ended or hung:\n{self.printed()}")
            time.sleep(0.002)

    def end(self, timeout: float = SECONDS) -> Done:
        """Wait for its end."""
        try:
            status = self._process.wait(timeout)
        except BaseException:
            self.kill_all()
            raise
        return Done(status, self.printed())

    def send(self, how: signal.Signals) -> None:
        """A signal to it alone."""
        self._process.send_signal(how)

    def send_all(self, how: signal.Signals) -> None:
        """A signal to it and all that it started, as Ctrl-C at a terminal."""
        os.killpg(self.pid, how)

    def children(self) -> list[psutil.Process]:
        """All that it started, and what those started."""
        return psutil.Process(self.pid).children(recursive=True)

    def kill_all(self) -> bool:
        """SIGKILL to it and all that it started, at once; whether there was something to kill."""
        if self.ended:
            return False
        parent = psutil.Process(self.pid)
        # Stopped first: nobody reacts to another one's end.
        parent.suspend()
        for one in [parent, *parent.children(recursive=True)]:
            one.kill()
        self._process.wait()
        return True


def environment(**more: str) -> dict[str, str]:
    """As after ``source .venv/bin/activate``, without settings of apao."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("APAO_")}
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    return {**kept, "PATH": path, "COLUMNS": "200", **more}


def start(folder: Path, *command: str, **more: str) -> Running:
    """Begin a command of the environment in ``folder``."""
    return Running(folder, command, environment(**more))


def run(folder: Path, *command: str, timeout: float = SECONDS, **more: str) -> Done:
    """Run a command to its end."""
    return start(folder, *command, **more).end(timeout)


def run_here(folder: Path, *arguments: str) -> Done:
    """``apao`` in this process, which has imported torch already."""
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
    """What is started here heeds Ctrl-C; a shell that started the tests in the background has all ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def bounded(action: Callable[[], Any], megabytes: int = 1024, seconds: int = 20) -> str:
    """Do it in a fork that may take so much more memory, and so much time of a processor; what came of it.

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
