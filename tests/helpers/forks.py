"""Processes forked from one that has imported torch, so that they start in milliseconds instead of seconds.

``run_forked`` is a command of ``apao`` that can be killed at any moment, ``run_processes`` the processes of one
training as torchrun starts them, ``in_fork`` any function.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import cache
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeVar

import torch
from torch.distributed import TCPStore

from helpers.processes import SECONDS, Done

Result = TypeVar("Result")

# One thread: a pool of threads does not survive a fork.
os.environ.update(OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")
FORKS = multiprocessing.get_context("forkserver")
# The first optimizer of a process imports torch's compiler, which takes as long as the rest of a small training.
_preloaded = ["apao.cli", "apao.stages.train", "torch._dynamo"]


def preload(*modules: str) -> None:
    """Make the server import further modules, before the first fork."""
    _preloaded.extend(modules)
    FORKS.set_forkserver_preload(_preloaded)


preload()


def run_forked(
    folder: Path,
    *arguments: str,
    after: float | None = None,
    how: signal.Signals = signal.SIGKILL,
    seen: Callable[[], object] | None = None,
    prepare: Callable[[], None] | None = None,
) -> Done:
    """Run ``apao`` in the project at ``folder``; send it a signal ``after`` this many seconds.

    The seconds count from the time when ``seen`` is true, if it is given.
    ``prepare`` is called in the command's process before it.
    """
    log = folder / "output"
    process = FORKS.Process(target=_command, args=(folder, log, arguments, prepare))
    started = time.monotonic()
    process.start()
    if how == signal.SIGINT:
        seen = log.exists  # earlier, Python itself would react, with a traceback
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
    done = run_forked(folder, *arguments, prepare=prepare)
    assert done.status == 0, f"{arguments}: {done.status}\n{done.output}"
    return done


def in_fork(function: Callable[..., Result], *arguments: object) -> Result:
    """Call a function in a fork of the server, which no test has changed; returns its result."""
    (result,) = _results([(function, arguments)])
    return result


def _results(calls: list[tuple[Callable[..., Result], tuple[object, ...]]]) -> list[Result]:
    """Results of functions that run at the same time, each in its own fork."""
    ends, processes = [], []
    for function, arguments in calls:
        end, other = FORKS.Pipe(duplex=False)
        processes.append(FORKS.Process(target=_send_result, args=(other, function, arguments)))
        processes[-1].start()
        other.close()
        ends.append(end)
    try:
        assert all(end.poll(SECONDS) for end in ends), "a process hangs"
        return [end.recv() for end in ends]
    finally:
        for process in processes:
            process.kill()
            process.join()


def _send_result(end: Connection, function: Callable[..., Result], arguments: tuple[object, ...]) -> None:
    torch.set_num_threads(1)
    end.send(function(*arguments))


_attempts = count()


@cache
def _store() -> TCPStore:
    """The store that torchrun keeps across attempts of a training; here one for all trainings, each as an attempt."""
    return TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


def run_processes(size: int, function: Callable[..., Result], *arguments: object) -> list[Result]:
    """Call ``function(rank, *arguments)`` in processes that can connect to one another; returns the results."""
    environment = {
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_store().port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": str(next(_attempts)),
    }
    ranks = [environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(size)]
    return _results([(_as_rank, (rank, function, *arguments)) for rank in ranks])


def _as_rank(environment: dict[str, str], function: Callable[..., Result], *arguments: object) -> Result:
    os.environ |= environment
    return function(int(environment["RANK"]), *arguments)
