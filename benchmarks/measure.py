"""Timing one piece of work honestly: warm-up, repeats, median and spread, and what the machine could do at best."""

from __future__ import annotations

import os
import platform
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from apao.devices import cpu_facts, device_name, wait_for

timer: Callable[[], float] = time.perf_counter
"""The clock of all measurements; ``time.process_time`` where other processes compute beside them."""
MOST_REPEATS = 50
IDLE = 0.1
"""Cores that other processes may keep busy while a case is measured; a case beside more is marked."""
MATRIX = (4096, 384, 128)
"""Rows, inner and columns of the matrix product that the machine is rated by; a size these models have."""


@dataclass(frozen=True)
class Measurement:
    """How fast something went.

    Attributes:
        rates: one per repeat.
        unit: of the rates.
        flops: floating-point operations per unit, counted by running it; None where they were not.
        fewer: operations per unit of the slower way over those of the faster; what the ratio would be if both did as
            many per second.
    """

    rates: list[float]
    unit: str
    flops: float | None = None
    fewer: float | None = None

    def row(self, name: str) -> dict[str, Any]:
        """As an entry of the results."""
        return {
            "name": name,
            "value": round(median(self.rates), 3),
            "unit": self.unit,
            "low": round(min(self.rates), 3),
            "high": round(max(self.rates), 3),
            "repeats": len(self.rates),
            "mflop_per_unit": None if self.flops is None else round(self.flops / 1e6, 2),
            "gflop_per_s": None if self.flops is None else round(self.flops * median(self.rates) / 1e9, 1),
            "times_fewer_operations": None if self.fewer is None else round(self.fewer, 2),
            "peak_memory_mb": round(peak_memory() / 2**20),
        }


def repeated(
    work: Callable[[], int], unit: str, seconds: float, device: torch.device, flops: bool = True
) -> Measurement:
    """Rates of ``work``, which returns how many units it did: one warm-up, then repeats for ``seconds``.

    Three repeats at least; with ``flops`` the warm-up counts the operations.
    """
    counted = operations(work) if flops else None
    if not flops:
        work()
    rates: list[float] = []
    begun = time.perf_counter()
    while len(rates) < 3 or (len(rates) < MOST_REPEATS and time.perf_counter() - begun < seconds):
        rates.append(1 / _seconds(work, device))
    return Measurement(rates, f"{unit}/s", counted)


def compared(
    work: Callable[[], int], other: Callable[[], int], unit: str, seconds: float, device: torch.device
) -> Measurement:
    """Times of a unit of ``work`` over those of ``other``, done in turn: a machine that slows down slows both."""
    ratios = []
    # Recorded passes, which a GPU replays, are not seen by the counter.
    fewer = operations(work) / operations(other) if device.type == "cpu" else None
    if fewer is None:
        work(), other()
    begun = time.perf_counter()
    while len(ratios) < 5 or (len(ratios) < MOST_REPEATS and time.perf_counter() - begun < seconds):
        ratios.append(_seconds(work, device) / _seconds(other, device))
    return Measurement(ratios, unit, fewer=fewer)


def operations(work: Callable[[], int]) -> float:
    """Floating-point operations of matrix products and attention that ``work`` does per unit."""
    with FlopCounterMode(display=False) as counter:
        units = work()
    return float(counter.get_total_flops() / units)


def _seconds(work: Callable[[], int], device: torch.device) -> float:
    """For one unit of it."""
    wait_for(device)
    started = timer()
    units = work()
    wait_for(device)
    return (timer() - started) / units


def matrix_rate(dtype: torch.dtype, device: torch.device) -> float:
    """GFLOP a second of one matrix product after another, with the threads that torch has now."""
    rows, inner, columns = MATRIX
    left, right = (torch.randn(shape, device=device).to(dtype) for shape in ((rows, inner), (inner, columns)))

    def work() -> int:
        for _ in range(20):
            left @ right
        return 20

    measured = repeated(work, "product", 1.0, device, flops=False)
    return round(median(measured.rates) * 2 * rows * inner * columns / 1e9, 1)


def busy_seconds() -> float | None:
    """Core-seconds that all processes of this machine have computed since it started; None where it does not say."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return None
    user, nice, system = map(int, stat.read_text().split()[1:4])
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")


def own_seconds() -> float:
    """Core-seconds of the processes that this one started and that have ended."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


class Watch:
    """What other processes computed while a case was measured, in cores: above 0.1 the machine was not idle."""

    def __init__(self) -> None:
        self._busy, self._own, self._started = busy_seconds(), own_seconds(), time.perf_counter()

    def others(self) -> float | None:
        """Cores that other processes kept busy since the beginning."""
        busy = busy_seconds()
        if self._busy is None or busy is None:
            return None
        own = own_seconds() - self._own
        return round(max(0.0, busy - self._busy - own) / (time.perf_counter() - self._started), 2)


def peak_memory() -> int:
    """Bytes: of the GPU where there is one in use, else of this process."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def machine(device: torch.device, threads: int) -> dict[str, Any]:
    """What the figures were measured on, and its rate of matrix products."""
    torch.set_num_threads(threads)
    facts = cpu_facts()
    return {
        "device": device_name(device),
        "cpu": facts.get("model name") or platform.processor(),
        "amx": "amx_bf16" in facts.get("flags", "").split(),
        "threads": threads,
        "torch": torch.__version__,
        "matrix": "x".join(map(str, MATRIX)),
        "fp32_gflop_per_s": matrix_rate(torch.float32, device),
        "bf16_gflop_per_s": matrix_rate(torch.bfloat16, device),
    }
