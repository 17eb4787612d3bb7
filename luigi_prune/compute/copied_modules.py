"""Deep copies of plain modules: equal to those of `copy.deepcopy`, several times as fast.

`copy.deepcopy` copies every tensor by itself, and takes apart every one of a module's twenty attributes, most of which
are empty dictionaries. `copy_tensors` copies all plain tensors of a network in a few operations, `copy_module` takes
the attributes over as they are where they are immutable or empty. Whatever is not plain is left to `copy.deepcopy`.
"""

from __future__ import annotations

import copy
import copyreg
from collections import OrderedDict
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

_IMMUTABLE = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size)
_CONTAINERS = (dict, OrderedDict, set, list)
_LAZY = ("meta", "lazy", "xla")  # their tensors have no memory, or none yet
_NUMBERS = (*(torch.float32, torch.float64, torch.float16, torch.bfloat16), *(torch.int64, torch.int32, torch.bool))


@torch.no_grad()
def copy_tensors(network: nn.Module, memo: dict[int, Any]) -> None:
    """Enter copies of the plain parameters and buffers of `network` into `memo`, that of `copy.deepcopy`.

    Buffers that are views, or that share their memory with others, are left out: their copies are to share it, too.
    """
    parameters = {id(value): value for value in network.parameters() if id(value) not in memo and _is_plain(value)}
    sources, targets = [value.data for value in parameters.values()], []
    for (key, value), source in zip(parameters.items(), sources, strict=True):
        targets.append(torch.empty_like(source))
        memo[key] = nn.Parameter(targets[-1], value.requires_grad)
    storages: dict[int, Any] = memo.setdefault("torch", {})  # type: ignore[call-overload]
    for buffer in network.buffers():
        if id(buffer) in memo or not _is_plain(buffer) or not _is_bare(buffer):
            continue
        storage = buffer.untyped_storage()
        if storage._cdata in storages or storage.nbytes() != buffer.numel() * buffer.element_size():
            continue
        memo[id(buffer)] = made = torch.empty_strided(
            buffer.shape, buffer.stride(), dtype=buffer.dtype, device=buffer.device
        )
        storages[storage._cdata] = made.untyped_storage()
        sources.append(buffer)
        targets.append(made)
    copy_all(targets, sources)


def copy_all(targets: list[Tensor], sources: list[Tensor]) -> None:
    """Copy the values of tensors into others, in place: on a GPU in a few operations."""
    if targets:
        torch._foreach_copy_(targets, sources)


def cloned(tensors: list[Tensor]) -> list[Tensor]:
    """Return copies of tensors: on a GPU made in a few operations."""
    copies = [torch.empty_like(tensor) for tensor in tensors]
    copy_all(copies, tensors)
    return copies


def _is_plain(value: Tensor) -> bool:
    return (
        (type(value) is nn.Parameter or type(value) is Tensor)
        and value.layout == torch.strided
        and value.dtype in _NUMBERS
        and value.device.type not in _LAZY
        and value.is_leaf
    )


def _is_bare(value: Tensor) -> bool:
    """Return whether a buffer is no view of a part of its memory, has neither gradient nor attributes of its own."""
    return not (value.requires_grad or value.storage_offset() or value.is_neg() or vars(value)) and value.grad is None


def copy_module(module: nn.Module, memo: dict[int, Any]) -> Any:
    """Return the copy of `module` that `copy.deepcopy(module, memo)` returns."""
    if (known := memo.get(id(module))) is not None:
        return known
    if not has_plain_state(type(module)):  # type: ignore[arg-type]
        return copy.deepcopy(module, memo)
    new = memo[id(module)] = type(module).__new__(type(module))
    state: dict[str, Any] = {}
    for name, value in _state_of(module).items():
        kind = type(value)
        if kind in _IMMUTABLE or (kind is tuple and all(type(each) in _IMMUTABLE for each in value)):
            state[name] = value
        elif kind in _CONTAINERS and not value:
            if id(value) not in memo:
                memo[id(value)] = kind()
            state[name] = memo[id(value)]
        elif kind is dict and name in ("_modules", "_parameters", "_buffers") and id(value) not in memo:
            memo[id(value)] = state[name] = {}
            state[name].update((key, _copy_part(part, memo)) for key, part in value.items())
        else:
            state[name] = copy.deepcopy(value, memo)
    new.__setstate__(state)
    return new


def _state_of(module: nn.Module) -> dict[str, Any]:
    """Return the state of which a copy is made: of later versions of torch without the compiled form."""
    state: dict[str, Any] = nn.Module.__getstate__(module) if "__getstate__" in vars(nn.Module) else vars(module)
    return state


def _copy_part(value: Any, memo: dict[int, Any]) -> Any:
    if value is None:
        return None
    if id(value) in memo:
        return memo[id(value)]
    return copy_module(value, memo) if isinstance(value, nn.Module) else copy.deepcopy(value, memo)


@lru_cache(maxsize=1024)
def has_plain_state(kind: type) -> bool:
    """Return whether `copy.deepcopy` copies modules of this class by their attributes, all of which are in `vars`."""
    changed = ("__new__", "__reduce__", "__reduce_ex__", "__getstate__")
    return (
        not any(getattr(kind, name, None) is not getattr(nn.Module, name, None) for name in changed)
        and not any(hasattr(kind, name) for name in ("__deepcopy__", "__getnewargs__", "__getnewargs_ex__"))
        and not issubclass(kind, (dict, list))
        and kind not in copyreg.dispatch_table
        and not copyreg._slotnames(kind)  # type: ignore[attr-defined]
    )
