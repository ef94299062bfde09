"""Choice of device and number format, and settings of the memory allocator.

Importing this module does not import torch, because the command line imports it for every subcommand.
"""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from apao.errors import UserError, first_line

if TYPE_CHECKING:
    import torch

Precision = Literal["auto", "fp32", "bf16"]

CPU_FACTS = Path("/proc/cpuinfo")

# Numbers of mallopt's parameters in glibc's malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
KEPT = 2**30
"""Bytes of free memory at the end of the heap that are not returned to the system."""
GROWTH = 2**26
"""Bytes by which the heap grows at a time."""


def has_gpu() -> bool:
    """Whether an NVIDIA GPU is available. Loads no CUDA where there is none, since every workflow calls this."""
    import torch

    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    return hidden not in ("", "-1") and shutil.which("nvidia-smi") is not None and torch.cuda.is_available()


def wait_for(device: torch.device) -> None:
    """Wait until a GPU has done all that it was given."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


def pick_device(name: str) -> torch.device:
    """The device ``name``; ``auto`` is the GPU if there is one.

    Under torchrun each process gets the GPU of its local rank.

    Raises:
        UserError: when this machine has no such device.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    number = os.environ.get("LOCAL_RANK")
    if number is not None and name == "cuda":
        name = f"cuda:{number}"
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda"):
            raise RuntimeError("it is neither cpu nor cuda")
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        hint = "start one process per GPU, or use --device cpu" if number else "use auto, cpu or cuda"
        raise UserError(f"device {name!r} cannot be used here ({first_line(error)}); {hint}") from error
    if device.type == "cuda":
        if device.index is not None:
            torch.cuda.set_device(device)
        # cuDNN builds a plan for every shape that it has not seen, in tenths of a second, and nearly every batch has a
        # shape of its own (docs/performance.md). PyTorch's other attention kernels take any shape.
        torch.backends.cuda.enable_cudnn_sdp(False)
    return device


def device_name(device: torch.device) -> str:
    """Name of the device for records and captions."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def uses_bf16(precision: Precision, device: torch.device) -> bool:
    """Whether to compute in bf16: as requested, or with ``auto`` if the device multiplies bf16 matrices fast."""
    import torch

    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # AMX tiles multiply bf16 many times as fast as AVX-512 multiplies fp32. Of the processors that have AVX-512 BF16
    # only, AMD's are faster in bf16; Intel's have one port for it and two for fp32 (docs/performance.md).
    if torch.cpu._is_amx_tile_supported():
        return True
    return torch.cpu._is_avx512_bf16_supported() and cpu_facts().get("vendor_id") == "AuthenticAMD"


def cpu_facts() -> dict[str, str]:
    """What Linux says of a processor, such as ``vendor_id``, ``model name`` and ``flags``; elsewhere empty."""
    try:
        lines = CPU_FACTS.read_text().splitlines()
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, colon, value in (line.partition(":") for line in lines) if colon}


def autocast(precision: Precision, device: torch.device, cache: bool = True) -> AbstractContextManager[object]:
    """Context of bf16 autocast, or one without effect; weights stay fp32 either way.

    With ``cache`` a weight is cast once in the context, not once per use.
    """
    import torch

    if uses_bf16(precision, device):
        return torch.autocast(device.type, dtype=torch.bfloat16, cache_enabled=cache)
    return nullcontext()


@contextmanager
def products(precision: Precision, device: torch.device) -> Iterator[None]:
    """Let a GPU that computes in bf16 multiply what stays in fp32 in TF32, with 10 instead of 23 bits of a factor."""
    import torch

    found = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = found or (device.type == "cuda" and uses_bf16(precision, device))
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = found


def keep_freed_memory() -> bool:
    """Make glibc's malloc keep freed blocks for the next step; return whether the settings were accepted.

    By default glibc maps a tensor of a few megabytes from the system and unmaps it when it is freed, so every page
    of every activation is faulted in again at every step.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, KEPT), (M_TOP_PAD, GROWTH))
    return all(mallopt(parameter, value) for parameter, value in settings)
