"""One training in several processes, which torchrun starts one per device; without torchrun in a single process.

Every process has the whole model and draws the same effective batches from the same seed. Each computes
its share of a step's micro-batches. The sum of their gradients over the processes is the gradient that one
process would compute, up to the order of summation. Only the first process writes files and messages.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import torch
from torch import Tensor, nn

from apao.errors import UserError
from apao.progress import console

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

Part = TypeVar("Part")

ANSWERS_WITHIN = timedelta(minutes=10)
"""Time after which a process that does not answer counts as failed; one that ended is noticed at once."""
RERUN = "rerun the same command to resume from the last checkpoint"


@dataclass(frozen=True)
class Processes:
    """This process among those of a training. ``add_up`` and ``gather`` must be called by all, in the same order."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0

    def share(self, parts: Iterable[Part]) -> Iterator[Part]:
        """Every ``size``-th part. All parts are drawn, so random numbers do not depend on the number of processes."""
        return islice(parts, self.rank, None, self.size)

    def add_up(self, parameters: Sequence[nn.Parameter], tensors: Iterable[Tensor]) -> None:
        """Replace the gradients of ``parameters``, and ``tensors``, by their sums over the processes, in one message.

        Raises:
            UserError: when another process has ended or does not answer.
        """
        if self.size == 1:
            return
        import torch.distributed as dist

        for parameter in parameters:
            if parameter.grad is None:
                # This process has no micro-batch in this step.
                parameter.grad = torch.zeros_like(parameter)
        summands = [*(parameter.grad for parameter in parameters if parameter.grad is not None), *tensors]
        message = torch.cat([summand.reshape(-1) for summand in summands])
        with _all_reached():
            dist.all_reduce(message)
        for summand, total in zip(summands, message.split([one.numel() for one in summands]), strict=True):
            summand.copy_(total.view_as(summand))

    def gather(self, value: Any) -> list[Any]:
        """The ``value`` of each process, in the order of the ranks.

        Raises:
            UserError: when another process has ended or does not answer.
        """
        if self.size == 1:
            return [value]
        import torch.distributed as dist

        values = [None] * self.size
        with _all_reached():
            dist.all_gather_object(values, value)
        return values


ALONE = Processes()


@contextmanager
def joined() -> Iterator[Processes]:
    """Connect to the other processes of the training, if torchrun started several.

    On failure only the process that fails first prints its error.

    Raises:
        UserError: when the others cannot be reached, or one of them is lost later.
    """
    given = os.environ.get("WORLD_SIZE", "1")
    if not given.isdecimal():
        raise UserError(f"WORLD_SIZE is {given!r}, expected a number of processes; start them with torchrun")
    size = int(given)
    if size == 1:
        yield ALONE
        return
    import torch.distributed as dist
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        store, rank, size = next(iter(rendezvous("env://", timeout=ANSWERS_WITHIN)))
        # torchrun keeps one store across restarts, so it holds addresses of processes of earlier attempts.
        store = PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=ANSWERS_WITHIN)
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"WORLD_SIZE is {size}, but the {size} processes cannot connect to one another ({error}); "
            "start them with torchrun, or unset WORLD_SIZE to train in one process"
        ) from error
    console.quiet = rank > 0
    # torchrun sends this signal to the others when one has failed.
    signal.signal(signal.SIGTERM, _terminated)
    try:
        yield Processes(rank, size)
    except BaseException:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        console.quiet = not _is_first_to_fail(store)
        raise
    dist.destroy_process_group()


def _is_first_to_fail(store: Store) -> bool:
    try:
        return store.add("failed", 1) == 1
    except RuntimeError:
        # The process that served the store has ended: better to report an error twice than not at all.
        return True


@contextmanager
def _all_reached() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        # Gloo's messages begin with its source file and end with advice to programmers.
        reason = re.sub(r"^\[[^]]*\] ", "", str(error).partition("\n")[0]).partition(". ")[0]
        raise UserError(f"another process of this training has ended or does not answer ({reason}); {RERUN}") from error


def _terminated(number: int, frame: object) -> NoReturn:
    raise UserError(f"terminated (SIGTERM), probably because another process of this training failed; {RERUN}")
