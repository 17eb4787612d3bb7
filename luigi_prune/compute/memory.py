"""Errors of a device: one line if it runs out of memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from luigi_prune.errors import OutOfMemory

# Of a device, whatever it was computing; before torch 2.8 the second kind is a RuntimeError like any other.
DEVICE_ERRORS = (torch.OutOfMemoryError, getattr(torch, "AcceleratorError", torch.OutOfMemoryError))


@contextmanager
def explain_oom(device: torch.device, activity: str, cure: str) -> Iterator[None]:
    """Raise OutOfMemory, naming `activity` and `cure`, if the block runs out of the device's memory."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        reason = (str(error) or "no reason given").split(". ")[0].splitlines()[0].rstrip(".")
        # Not chained: the cause's traceback would keep the tensors alive that fill the memory.
        raise OutOfMemory(f"{activity}: {device} is out of memory ({reason}); {cure}") from None
