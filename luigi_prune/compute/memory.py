"""What happens if a device runs out of memory: one line that says what helps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from luigi_prune.errors import OutOfMemory


@contextmanager
def memory_of(device: torch.device, what: str, cure: str) -> Iterator[None]:
    """Raise OutOfMemory where the block runs out of the device's memory: `what` was done, and the `cure` for it."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        reason = (str(error) or "no reason given").split(". ")[0].splitlines()[0].rstrip(".")
        # Without its cause, whose traceback would keep everything alive that fills the memory.
        raise OutOfMemory(f"{what}: {device} is out of memory ({reason}); {cure}") from None
