"""The processes of one training as torchrun starts them, but forked from one that has imported torch already."""

import multiprocessing
import os
from collections.abc import Callable
from functools import cache
from itertools import count
from multiprocessing.connection import Connection
from typing import TypeVar

import torch
from torch.distributed import TCPStore

Result = TypeVar("Result")
SECONDS = 120
"""Far more than any of them takes; a hang fails instead of blocking."""


_attempts = count()


@cache
def _store() -> TCPStore:
    """What torchrun keeps for all attempts of a training; here one for all trainings, each of which is an attempt."""
    return TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


def run_processes(size: int, function: Callable[..., Result], *arguments: object) -> list[Result]:
    """``function(rank, *arguments)`` in every process, which know of one another; what each returned."""
    # A server that has computed nothing yet: torch's threads do not survive a fork.
    context = multiprocessing.get_context("forkserver")
    # The first optimizer of a process imports torch's compiler, which takes as long as all else here.
    context.set_forkserver_preload(["apao.cli", "apao.stages.train", "torch._dynamo"])
    environment = {
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_store().port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": str(next(_attempts)),
    }
    ends, processes = [], []
    for rank in range(size):
        end, other = context.Pipe(duplex=False)
        process = context.Process(
            target=_as_rank,
            args=(environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, other, function, arguments),
        )
        process.start()
        other.close()
        ends.append(end)
        processes.append(process)
    try:
        assert all(end.poll(SECONDS) for end in ends), "a process hangs"
        return [end.recv() for end in ends]
    finally:
        for process in processes:
            process.kill()
            process.join()


def _as_rank(
    environment: dict[str, str], end: Connection, function: Callable[..., Result], arguments: tuple[object, ...]
) -> None:
    os.environ |= environment
    torch.set_num_threads(1)
    end.send(function(int(environment["RANK"]), *arguments))
