"""One training shared by the processes that torchrun started, one per device; without torchrun there is one.

Every process holds the whole model and draws the same effective batches from the same seed. Each computes
its share of a step's micro-batches, whose gradients add up over the processes to those that one process
would have: the same step, summed in another order. Only the first process writes files and speaks.
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
"""What is alive but does not answer for so long has failed; what died is noticed at once."""
RERUN = "rerun the same command to resume from the last checkpoint"


@dataclass(frozen=True)
class Processes:
    """This process among those of a training. What the methods send, all must send, in the same order."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def share(self, parts: Iterable[Part]) -> Iterator[Part]:
        """Every ``size``-th of the parts; all are drawn, so that random numbers stay those of one process."""
        return islice(parts, self.rank, None, self.size)

    def add_up(self, parameters: Sequence[nn.Parameter], carried: Iterable[Tensor]) -> None:
        """Replace gradients and the tensors ``carried`` by their sums over the processes, in one message."""
        if self.size == 1:
            return
        import torch.distributed as dist

        for parameter in parameters:
            if parameter.grad is None:
                # A process without a part in this step.
                parameter.grad = torch.zeros_like(parameter)
        summands = [*(parameter.grad for parameter in parameters if parameter.grad is not None), *carried]
        message = torch.cat([summand.reshape(-1) for summand in summands])
        with _all_reached():
            dist.all_reduce(message)
        for summand, total in zip(summands, message.split([one.numel() for one in summands]), strict=True):
            summand.copy_(total.view_as(summand))

    def gather(self, value: Any) -> list[Any]:
        """What each process gave, in the order of the ranks."""
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
    """Meet the other processes of the training, if torchrun started several.

    When they fail, the first to do so says why and the others end without a word.

    Raises:
        UserError: when they cannot be reached; later, when one of them is lost.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
        return
    import torch.distributed as dist
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        store, rank, size = next(iter(rendezvous("env://", timeout=ANSWERS_WITHIN)))
        # torchrun keeps one store for all its attempts; the addresses of the last one's processes are in it.
        store = PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=ANSWERS_WITHIN)
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"WORLD_SIZE is {size}, but the {size} processes do not find one another ({error}); "
            "start them with torchrun, or unset WORLD_SIZE to train in one process"
        ) from error
    console.quiet = rank > 0
    # torchrun ends the others with this signal when one has failed.
    signal.signal(signal.SIGTERM, _told_to_end)
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
        # The store went with the process that kept it: better said twice than not at all.
        return True


@contextmanager
def _all_reached() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        # Gloo begins with its source file and ends with advice to those who write programs.
        reason = re.sub(r"^\[[^]]*\] ", "", str(error).partition("\n")[0]).partition(". ")[0]
        raise UserError(f"another process of this training has ended or does not answer ({reason}); {RERUN}") from error


def _told_to_end(number: int, frame: object) -> NoReturn:
    raise UserError(f"terminated (SIGTERM), as when another process of this training has failed; {RERUN}")
