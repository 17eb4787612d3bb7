"""Counting the operations for which the CPU waits for a device, or would on one that runs on its own.

    with count_synchronisations() as counts:
        api.prune(network, "SiPPNet", 0.5, ...)
    counts.total, counts.by_operation

Works with CUDA tensors and with every other device but the CPU. Counted are reads of a number (`item`, `bool`,
`float`), copies to the CPU, blocking copies to the device, and operations whose result's shape depends on data
(`nonzero`, indexing with a mask). Synchronisations inside a kernel of a library are not seen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

# Operations that return a Python number, or whose output's shape the host has to know.
_READS = {"_local_scalar_dense": "item", "equal": "equal", "is_nonzero": "item", "allclose": "equal"}
_SHAPES = ("nonzero", "masked_select", "unique_consecutive", "_unique", "_unique2", "unique_dim", "bincount")
_INDEXING = ("index", "index_put", "index_put_", "_index_put_impl_")


@dataclass
class Counts:
    """How often each kind of synchronisation happened."""

    by_operation: Counter[str] = field(default_factory=Counter)

    @property
    def total(self) -> int:
        """All synchronisations together."""
        return self.by_operation.total()


@contextmanager
def count_synchronisations() -> Iterator[Counts]:
    """Count the synchronisations of what runs in the block, backward passes included."""
    counts = Counts()
    # `torch.tensor(..., device=...)` copies below the dispatcher unless it is told to build on the CPU first.
    before = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)
    try:
        with _Counting(counts):
            yield counts
    finally:
        torch._C._set_only_lift_cpu_tensors(before)


class _Counting(TorchDispatchMode):
    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self._counts = counts

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self._counts.by_operation.update(synchronisations(func, args, kwargs))
        return func(*args, **kwargs)


def synchronisations(func: Any, args: Any, kwargs: dict[str, Any]) -> list[str]:
    """Return the names of the synchronisations that one call of an ATen operator causes."""
    tensors = [value for value in tree_iter((args, kwargs)) if isinstance(value, Tensor)]
    on_device = [on_a_device(tensor.device) for tensor in tensors]
    name = func.overloadpacket.__name__
    if name in ("_to_copy", "copy_"):
        copied = _copied(name, tensors, kwargs)
        return [copied] if copied else []
    if not any(on_device):
        return []
    if name in _READS:
        return [_READS[name]]
    if name in _SHAPES:
        return [name]
    if name in _INDEXING:
        indices = [index for index in args[1] if isinstance(index, Tensor)]
        # One number written by a mask is filled in, without looking for the places.
        one_number = name != "index" and args[2].numel() == 1
        by_mask = any(index.dtype in (torch.bool, torch.uint8) for index in indices)
        masks = ["index by mask"] if by_mask and not one_number else []
        return masks + ["copy to device"] * sum(not on_a_device(index.device) for index in indices)
    if name == "repeat_interleave" and not kwargs.get("output_size") and isinstance(args[-1], Tensor):
        return [name]
    return []


def _copied(name: str, tensors: list[Tensor], kwargs: dict[str, Any]) -> str | None:
    """Return the direction of a copy between the CPU and a device; None for one that nobody waits for."""
    if name == "copy_":
        target, source = tensors[0].device, tensors[1].device
    else:
        source, target = tensors[0].device, torch.device(kwargs.get("device") or tensors[0].device)
    if on_a_device(source) == on_a_device(target):
        return None
    if on_a_device(source):
        return "copy to CPU"  # asked for without blocking or not: whoever reads the copy has to wait
    return None if kwargs.get("non_blocking") else "copy to device"


def on_a_device(device: torch.device) -> bool:
    """Return whether the host has to wait for what happens there."""
    return device.type not in ("cpu", "meta")
