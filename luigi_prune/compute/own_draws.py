"""Random numbers that a network draws in its forward: always the same ones, and none of the caller's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def own_draws(device: torch.device, seed: int = 0) -> Iterator[None]:
    """Let torch's global generators of the CPU and of `device` begin at `seed`, and restore them afterwards.

    Two runs of a network, each in such a block, differ by what was changed in it, and not by its draws.
    """
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        for each in devices:
            index = torch.cuda.current_device() if each.index is None else each.index
            torch.cuda.default_generators[index].manual_seed(seed)
        yield
