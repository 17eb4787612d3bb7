"""Products in the precision of their numbers: TF32, which GPUs use for convolutions by default, keeps three digits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


def _switches() -> list[tuple[Any, str, object]]:
    """Return what has to change for TF32 to be off: objects, their attributes, and the values to set."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    try:
        return [(owner, "allow_tf32", False) for owner in (cudnn, matmul) if owner.allow_tf32]
    except RuntimeError:  # set by the newer names, with which torch does not let one mix the older ones
        return [(part, "fp32_precision", "ieee") for part in (cudnn.conv, cudnn.rnn, matmul)]


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Compute without TF32 on a GPU inside the block: scores and checks of outputs are as exact as on a CPU."""
    switches = _switches() if device.type == "cuda" else []
    before = [getattr(owner, name) for owner, name, _ in switches]
    try:
        for owner, name, off in switches:
            setattr(owner, name, off)
        yield
    finally:
        for (owner, name, _), value in zip(switches, before, strict=True):
            setattr(owner, name, value)
