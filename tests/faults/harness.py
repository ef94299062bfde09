"""Commands of `apao` in processes of their own that can be killed at any moment, at little cost.

A fork server imports torch and the rest once; every command is a child of it and begins within
milliseconds, where a process from nothing takes seconds.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SECONDS = 600
"""Far more than any command here takes; a hang fails instead of blocking."""

# One thread: a pool of threads does not survive a fork.
os.environ.update(OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        "apao.cli",
        "apao.stages.codes",
        "apao.stages.embed",
        "apao.stages.download",
        "apao.stages.preprocess",
        "apao.stages.baselines",
        "apao.stages.pruning",
        "apao.stages.beams",
        "apao.stages.decoding_time",
        "apao.report.render",
        "apao.stages.report",
        "apao.stages.train",
        "huggingface_hub",
        "matplotlib.backends.backend_agg",
        "matplotlib.backends.backend_pdf",
        "matplotlib.pyplot",
        "pyarrow.parquet",
        "sentence_transformers.sentence_transformer.modules",
        "tensorboard.compat.proto.event_pb2",
        "tensorboard.summary.writer.record_writer",
        "transformers.models.llama.modeling_llama",
    ]
)


@dataclass
class Done:
    """A command that has ended, by itself or by a signal (a negative status)."""

    status: int
    output: str
    seconds: float

    @property
    def killed(self) -> bool:
        return self.status == -signal.SIGKILL

    @property
    def errors(self) -> list[str]:
        """The lines that say what went wrong."""
        return [line for line in self.output.splitlines() if line.startswith("error: ")]


def apao(
    folder: Path,
    *arguments: str,
    after: float | None = None,
    how: signal.Signals = signal.SIGKILL,
    seen: Callable[[], object] | None = None,
    prepare: Callable[[], None] | None = None,
) -> Done:
    """Run a command in the project at ``folder``; ``after`` so many seconds send it a signal.

    The seconds count from when ``seen`` is true, where it is given.
    ``prepare`` is called in the command's process before it.
    """
    log = folder / "output"
    process = FORKS.Process(target=_command, args=(folder, log, arguments, prepare))
    started = time.monotonic()
    process.start()
    if how == signal.SIGINT:
        seen = log.exists  # before it Python itself would answer, with a traceback
    while seen is not None and not seen() and process.is_alive():
        time.sleep(0.001)
    process.join(SECONDS if after is None else after)
    if process.is_alive():
        assert after is not None, f"{arguments} hangs"
        os.kill(process.pid, how)
    process.join(SECONDS)
    seconds = time.monotonic() - started
    output = log.read_text() if log.exists() else ""
    log.unlink(missing_ok=True)
    return Done(process.exitcode, output, seconds)


def _command(folder: Path, log: Path, arguments: tuple[str, ...], prepare: Callable[[], None] | None) -> None:
    from apao.cli import main

    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(folder)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    for name in [name for name in os.environ if name.startswith("APAO_")]:
        del os.environ[name]
    sys.argv = ["apao", *arguments]
    if prepare is not None:
        prepare()
    main()


def finish(folder: Path, *arguments: str, prepare: Callable[[], None] | None = None) -> Done:
    """Run a command that must succeed."""
    done = apao(folder, *arguments, prepare=prepare)
    assert done.status == 0, f"{arguments}: {done.status}\n{done.output}"
    return done


def in_fork(function: Callable[..., object], *arguments: object) -> None:
    """Call a function where everything is imported already."""
    process = FORKS.Process(target=function, args=arguments)
    process.start()
    process.join(SECONDS)
    assert process.exitcode == 0
