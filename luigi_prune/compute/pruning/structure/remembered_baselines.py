"""The structure of unpruned networks, remembered between calls by everything that the probe reads.

A probe runs a copy of the network with random numbers in place of parameters, so that its first run depends on classes,
settings, buffers and wiring only. `key_of` describes all of these, or returns None for a network that cannot be
described completely; its probe then runs anew.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import types
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from luigi_prune.compute.pruning.structure.channel_hooks import Structure
from luigi_prune.compute.zeros import to_numbers

REMEMBERED = 8  # baselines
_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType)
_OWN_STATE = ("__getstate__", "__reduce__", "__reduce_ex__", "__getattr__", "__getattribute__")
_CAN_CHANGE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: classes that are written in Python
_CODE = (
    *(type, TypeVar, *_FUNCTIONS, types.ModuleType, types.MethodDescriptorType, types.WrapperDescriptorType),
    *(types.GetSetDescriptorType, types.MemberDescriptorType, property, staticmethod, classmethod),
)

Key = tuple[bytes, tuple[Any, ...]]
_baselines: OrderedDict[Key, tuple[Structure, bool]] = OrderedDict()


def recall(key: Key | None) -> tuple[Structure, bool] | None:
    """Return the baseline under a key, and whether its numbers were safe in their precision; None if it is new."""
    known = None if key is None else _baselines.get(key)
    if key is not None and known is not None:
        with suppress(KeyError):  # another thread may have dropped it
            _baselines.move_to_end(key)
    return known


def remember(key: Key | None, baseline: Structure, is_safe: bool) -> None:
    """Keep a baseline under its key."""
    if key is None:
        return
    _baselines[key] = baseline, is_safe
    while len(_baselines) > REMEMBERED:
        _baselines.popitem(last=False)


def forget() -> None:
    """Drop all baselines."""
    _baselines.clear()


def compressed(baseline: Structure) -> Structure:
    """Return the same structure in less memory: its matrices together have as many entries as the weights.

    A matrix whose entries are all True, as most are, takes the memory of one entry.
    """
    linked = {name: pairs for name, pairs in baseline.linked.items() if pairs.numel()}
    full = dict(zip(linked, to_numbers(pairs.all() for pairs in linked.values()), strict=True))
    small = {
        name: pairs.flatten()[:1].clone().expand(pairs.shape) if full.get(name) else pairs
        for name, pairs in baseline.linked.items()
    }
    return replace(baseline, linked=small)


def key_of(network: nn.Module, hollow: list[Tensor], *others: Any) -> Key | None:
    """Return a key of `network`, whose parameters `hollow` do not matter, and of `others`, tensors by value.

    It holds all attributes of all modules, buffers by value, and the identity of every class and function with its
    methods and the globals that they name. None if anything else could change unnoticed: methods set on instances, and
    objects that cannot be pickled or write themselves.
    """
    if any(vars(torch.nn.modules.module)[name] for name in ("_global_forward_hooks", "_global_forward_pre_hooks")):
        return None
    file = io.BytesIO()
    writer = _Writer(file, {id(parameter): index for index, parameter in enumerate(hollow)}, _on_cpu(network))
    try:
        writer.dump((network, others, torch.get_default_dtype(), torch.backends.mha.get_fastpath_enabled()))
    except Exception:  # of any object's own pickling
        return None
    return hashlib.sha256(file.getvalue()).digest(), tuple(writer.seen)


def _on_cpu(network: nn.Module) -> dict[int, Tensor]:
    """Return the buffers of `network` that are not on the CPU, copied there with one transfer for all of a type."""
    groups: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for buffer in network.buffers():
        if buffer.device.type not in ("cpu", "meta") and buffer.layout == torch.strided:
            groups.setdefault((buffer.dtype, buffer.device), []).append(buffer)
    here: dict[int, Tensor] = {}
    for some in groups.values():
        flat = torch.cat([buffer.detach().flatten() for buffer in some]).cpu()
        parts = flat.split([buffer.numel() for buffer in some])
        here |= {id(buffer): part for buffer, part in zip(some, parts, strict=True)}
    return here


class _Same:
    """An object in a key: equal to itself only. The key keeps it alive, so that no other one gets its identity."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value


class _Writer(pickle.Pickler):
    """Writes tensors by value, hollow parameters by shape, and classes and functions as numbers of entries of `seen`.

    Raises TypeError for what has a state that it cannot write.
    """

    def __init__(self, file: io.BytesIO, hollow: dict[int, int], here: dict[int, Tensor]) -> None:
        super().__init__(file, protocol=5)
        self._hollow, self._here, self._numbers = hollow, here, dict[int, int]()
        self.seen: list[Any] = []

    def persistent_id(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self._described(value)
        if isinstance(value, types.MethodType):
            raise TypeError("it is pickled by name")
        return self._number(value) if isinstance(value, (type, *_FUNCTIONS)) else None

    def _described(self, tensor: Tensor) -> tuple[Any, ...]:
        form = tuple(tensor.shape), str(tensor.dtype), str(tensor.device), tensor.requires_grad, tensor.stride()
        if (index := self._hollow.get(id(tensor))) is not None:
            return "parameter", index, *form
        if type(tensor) is not Tensor or tensor.layout != torch.strided:
            raise TypeError("no plain tensor")
        plain = self._here[id(tensor)] if id(tensor) in self._here else tensor.detach().contiguous().cpu().flatten()
        return "tensor", hashlib.sha256(plain.view(torch.uint8).numpy().data).digest(), *form

    def _number(self, value: Any) -> int:
        """Return the number of a class or function, whose parts follow it in `seen`."""
        if id(value) in self._numbers:
            return self._numbers[id(value)]
        number = self._numbers[id(value)] = len(self.seen)
        self.seen.append(_Same(value))
        if isinstance(value, type):
            for base in value.__mro__:
                if base.__flags__ & _CAN_CHANGE:
                    self._add_class(base)
        elif isinstance(value, types.FunctionType):
            self._add_function(value)
        return number

    def _add_class(self, base: type) -> None:
        is_module = issubclass(base, nn.Module)
        if is_module and base is not nn.Module and any(name in vars(base) for name in _OWN_STATE):
            raise TypeError("it may leave out a part of its state")
        for name, part in list(vars(base).items()):
            if name.startswith("__") and name.endswith("__") and not isinstance(part, types.FunctionType):
                continue
            function = part.fget if isinstance(part, property) else getattr(part, "__func__", part)
            if is_module and name != "__init__" and isinstance(function, types.FunctionType):
                self._number(function)
            if _is_of_torch(base):
                self.seen.append((name, _Same(part)))
            else:
                self._add(name, part)

    def _add_function(self, function: types.FunctionType) -> None:
        if _is_of_torch(function):
            return
        code = function.__code__
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            if name != "__class__":
                self._add(name, cell.cell_contents)
        names = list(_names(code))
        for name in names:
            if name not in function.__globals__:
                continue
            value = function.__globals__[name]
            self._add(name, value)
            if isinstance(value, types.ModuleType):
                for part in names:
                    if part in vars(value):
                        self._add(part, vars(value)[part])

    def _add(self, name: str, value: Any) -> None:
        """Add a global, an attribute of a class or a variable of a closure: by identity if it is code, else by value.

        A function's parts are added, too.
        """
        if isinstance(value, nn.Module):
            raise TypeError("it has weights")
        self.seen.append((name, _Same(value) if isinstance(value, _CODE) else pickle.dumps(value)))
        if isinstance(value, types.FunctionType):
            self._number(value)


def _is_of_torch(value: Any) -> bool:
    return (value.__module__ or "").partition(".")[0] == "torch"


def _names(code: types.CodeType) -> Iterator[str]:
    """Yield the names in a function's code, and in the functions inside it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)
