"""Memory that is freed and asked for again at every step, kept by the process."""

from __future__ import annotations

import ctypes

# Numbers of mallopt's parameters in glibc's malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
KEPT = 2**30
"""Bytes of free memory at the end of the heap that are not given back."""
GROWTH = 2**26
"""Bytes by which the heap grows at a time."""


def keep_freed_memory() -> bool:
    """Have glibc keep large blocks for the next step; returns whether this process has a glibc to ask.

    By default it takes a tensor of some megabytes from the system and gives it back when it is freed, so
    that every page of every activation is faulted in anew, step after step.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, KEPT), (M_TOP_PAD, GROWTH))
    return all(mallopt(parameter, value) for parameter, value in settings)
