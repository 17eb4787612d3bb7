"""Freed memory that the C library still holds."""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable

from torch import nn

LARGE = 64 * 2**20  # bytes of a network's parameters


def return_freed_memory(network: nn.Module) -> None:
    """Return freed memory to the system if `network` is large, and if the C library is glibc.

    glibc keeps freed blocks below 32 MB unless they lie at the end of its heap. Weights of most layers are smaller: so
    the memory that one phase of pruning has freed would stay, in pieces too small for the next one, and add up to half
    of a network's peak. Small networks are pruned faster without.
    """
    if (trim := _trim()) is None:
        return
    if sum(value.numel() * value.element_size() for value in network.parameters()) >= LARGE:
        trim(0)


@functools.cache
def _trim() -> Callable[[int], int] | None:
    if sys.platform != "linux":
        return None
    function: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return function
