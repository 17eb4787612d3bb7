"""A device that does not exist, for finding on a CPU what a GPU would refuse.

Its tensors say `device="pretended:0"`, compute on the CPU, and refuse what CUDA refuses: operations between the CPU and
the device (but for numbers and for indices on the CPU), generators of the wrong device, `numpy()`.

    with pretended_device() as device:
        network.to(device)(inputs.to(device))
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_iter, tree_map_only
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pretended"
_COPIES = ("_to_copy", "copy_", "copy")
_INDEXING = ("index", "index_put", "index_put_", "_index_put_impl_")


_open: list[torch.device] = []  # the device, once for each block that is open


def _register() -> torch.device:
    """Register the device, once in a process and for good, and return it."""
    module = SimpleNamespace(
        is_available=lambda: bool(_open),  # other tests of the process must not find a device
        device_count=lambda: 1,
        current_device=lambda: 0,
        is_initialized=lambda: True,
        _is_in_bad_fork=lambda: False,
        # What draws there draws from the CPU's generator.
        manual_seed_all=lambda seed: None,
        get_rng_state=lambda device=None: torch.empty(0, dtype=torch.uint8),
        set_rng_state=lambda state, device=None: None,
    )
    _setup_privateuseone_for_python_backend(NAME, backend_module=module)
    return torch.device(NAME, 0)


# When this file is imported, which pytest does before any test runs: the first backward pass counts the devices.
DEVICE = _register()


@contextmanager
def pretended_device() -> Iterator[torch.device]:
    """Yield the pretended device; tensors can be made on it and moved to it inside the block."""
    before = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # so that `torch.tensor(..., device=...)` is seen
    _open.append(DEVICE)
    try:
        with _Pretending():
            yield DEVICE
    finally:
        _open.pop()
        torch._C._set_only_lift_cpu_tensors(before)


class OnDevice(Tensor):
    """A tensor that lies on the pretended device; `inner` is the CPU tensor with its numbers."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> OnDevice:
        return Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=DEVICE,
        )

    def __init__(self, inner: Tensor) -> None:
        self.inner = inner

    def __repr__(self, *, tensor_contents: object = None) -> str:
        return f"OnDevice({self.inner})"

    def tolist(self) -> Any:
        """Copy to the CPU and convert, which torch does for real devices only."""
        return self.detach().cpu().tolist()

    def numpy(self, *, force: bool = False) -> Any:
        raise TypeError(f"can't convert {self.device} device type tensor to numpy. Use Tensor.cpu() first.")

    __array__ = numpy

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Pretending(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run an operator on the CPU and return its results as tensors of where they would lie."""
    name = func.overloadpacket.__name__
    tensors = [value for value in tree_iter((args, kwargs)) if isinstance(value, Tensor)]
    asked = kwargs.get("device")
    on_device = torch.device(asked).type == NAME if asked is not None else any(_pretends(each) for each in tensors)
    refuse_mixed(func, name, args, tensors)
    refuse_generator(name, args, kwargs, on_device)
    plain_args, plain_kwargs = tree_map_only(OnDevice, lambda tensor: tensor.inner, (args, kwargs))
    if asked is not None:
        plain_kwargs = {**plain_kwargs, "device": torch.device("cpu")}
        plain_kwargs.pop("non_blocking", None)
        if name == "_to_copy" and on_device != any(_pretends(each) for each in tensors):
            found = func(*plain_args, **plain_kwargs)
            return OnDevice(found) if on_device else found
    if name == "copy_" and not _pretends(args[0]):
        func(*plain_args, **plain_kwargs)
        return args[0]
    found = func(*plain_args, **plain_kwargs)
    if not on_device or not any(isinstance(value, Tensor) for value in tree_iter(found)):
        return found
    return return_and_correct_aliasing(func, args, kwargs, tree_map_only(Tensor, _on_device, found))


def _on_device(tensor: Tensor) -> OnDevice:
    return tensor if isinstance(tensor, OnDevice) else OnDevice(tensor)


def _pretends(value: object) -> bool:
    return isinstance(value, OnDevice)


def refuse_mixed(func: Any, name: str, args: Any, tensors: list[Tensor]) -> None:
    """Raise what CUDA raises for tensors on both sides."""
    here = [tensor for tensor in tensors if not _pretends(tensor)]
    if name in _COPIES or not here or len(here) == len(tensors):
        return
    written = name.endswith("_") and not name.endswith("__") and not _pretends(args[0])
    if name in _INDEXING and _pretends(args[0]):  # indices may lie on the CPU
        values = [value for value in args[2:3] if isinstance(value, Tensor)]
        here = [value for value in values if not _pretends(value) and value.dim()]
    elif torch.Tag.pointwise in func.tags and not written:
        here = [tensor for tensor in here if tensor.dim()]  # numbers may lie on the CPU
    if here or written:
        raise RuntimeError(f"aten::{name}: expected all tensors on one device, got cpu and {NAME}")


def refuse_generator(name: str, args: Any, kwargs: dict[str, Any], on_device: bool) -> None:
    """Raise what CUDA raises for a generator of the CPU."""
    for value in tree_iter((args, kwargs)):
        if isinstance(value, torch.Generator) and (value.device.type == NAME) != on_device:
            raise RuntimeError(f"aten::{name}: expected a generator of {'the device' if on_device else 'the CPU'}")
