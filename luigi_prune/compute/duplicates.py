"""Copies of networks: of those that hold tensors with a history, without wrappers, and with weights of another."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.overrides import TorchFunctionMode

from luigi_prune.compute.copied_modules import copy_all, copy_module, copy_tensors, has_plain_state
from luigi_prune.compute.copy_checks import check_apart, uncopyable
from luigi_prune.compute.memory import DEVICE_ERRORS
from luigi_prune.compute.zeros import equal
from luigi_prune.errors import LuigiPruneError


class _WithoutHistory(TorchFunctionMode):
    """Let `copy.deepcopy` copy tensors that autograd computed: their values, without their history."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__deepcopy__ and not args[0].is_leaf:
            tensor, memo = args
            if id(tensor) not in memo:
                memo[id(tensor)] = tensor.detach().clone()
            return memo[id(tensor)]
        return func(*args, **(kwargs or {}))


def duplicate(network: nn.Module, memo: dict[int, Any] | None = None) -> nn.Module:
    """Return a deep copy of `network`, even of one that keeps an activation or computes its weights from others.

    `memo`: copies that are already made, by the id of what they replace, as for `copy.deepcopy`. Raises ConfigError,
    with its name, for something in the network that cannot be copied.
    """
    memo = {} if memo is None else memo
    try:
        copy_tensors(network, memo)
        with _WithoutHistory():
            copied: nn.Module = copy_module(network, memo)
    except (*DEVICE_ERRORS, MemoryError, LuigiPruneError):
        raise
    except Exception as error:
        raise uncopyable(network, error) from error
    if not all(has_plain_state(type(module)) for module in network.modules()):  # type: ignore[arg-type]
        check_apart(network, copied)
    return copied


def wrapper_of(module: nn.Module) -> str | None:
    """Return the name of what wraps a network in `module`, or None if `module` is no wrapper."""
    if isinstance(module, (nn.parallel.DistributedDataParallel, nn.DataParallel)):
        return type(module).__name__
    # Importing the class of compiled modules would load the compiler.
    if isinstance(module._modules.get("_orig_mod"), nn.Module) or module._compiled_call_impl is not None:
        return "torch.compile"
    return None


def without_wrappers(network: nn.Module) -> nn.Module:
    """Return a copy of `network` in which every wrapper is replaced by a copy of the module inside."""
    copies: dict[int, Any] = {}
    for module in reversed(list(network.modules())):  # inner ones first
        inside = module._modules.get("_orig_mod")
        if isinstance(module, (nn.parallel.DistributedDataParallel, nn.DataParallel)):
            inside = module.module
        if isinstance(inside, nn.Module):
            copies[id(module)] = duplicate(inside, copies)
    return duplicate(network, copies)


def share_equal(network: nn.Module, source: nn.Module, *, known: bool = False) -> None:
    """Let parameters of `network` use the memory of those of `source` of the same name and value: to be read only.

    `known`: parameters of the same name have the same value.
    """
    same: list[tuple[nn.Parameter, nn.Parameter]] = []
    values = dict(source.named_parameters())
    for name, parameter in network.named_parameters():
        other = values.get(name)
        if other is None or other.is_inference() or any(type(each) is not nn.Parameter for each in (parameter, other)):
            continue
        forms = [(each.shape, each.stride(), each.dtype, each.device, each.layout) for each in (parameter, other)]
        if forms[0] == forms[1]:
            same.append((parameter, other))
    for (parameter, other), is_equal in zip(same, [True] * len(same) if known else equal(same), strict=True):
        if is_equal:
            parameter.data = other.data


@torch.no_grad()
def with_weights_of(source: nn.Module, given: nn.Module, replaced: type[nn.Module], *, take: bool = False) -> nn.Module:
    """Return a copy of `given` with the parameters of `source`, and with its modules of the type `replaced`.

    Buffers and all other state are those of `given`, except for the running means of normalisations, into which
    pruning folds constants. The parameters keep the memory layout that they have in `given`. `take`: nobody uses
    `source` any more, so that its parameters need not be copied.
    """
    values, copies = dict(source.named_parameters()), dict[int, Any]()
    targets, sources = list[Tensor](), list[Tensor]()
    for name, parameter in given.named_parameters():
        if (value := values.get(name)) is None or not _are_alike(value, parameter):
            continue
        memory = value.untyped_storage()
        if take and value.stride() == parameter.stride() and memory.nbytes() == value.numel() * value.element_size():
            made = value.detach()
        else:
            targets.append(made := torch.empty_like(parameter.detach()))
            sources.append(value.detach())
        copies[id(parameter)] = nn.Parameter(made, parameter.requires_grad)
    copy_all(targets, sources)
    network = _with_replaced(source, duplicate(given, dict(copies)), replaced)
    done = {id(parameter) for parameter in copies.values()}
    for name, parameter in network.named_parameters():
        if values[name] is not parameter and id(parameter) not in done:
            parameter.copy_(values[name])
    modules = dict(source.named_modules())
    means = [
        (module.running_mean, modules[name].running_mean)
        for name, module in network.named_modules()
        if isinstance(module, _NormBase) and isinstance(module.running_mean, Tensor)
    ]
    copy_all(*(list(some) for some in zip(*means, strict=True))) if means else None
    return network


def _are_alike(one: nn.Parameter, other: nn.Parameter) -> bool:
    """Return whether the values of two parameters are stored in the same way."""
    forms = [(type(each), each.shape, each.dtype, each.device, each.layout) for each in (one, other)]
    return forms[0] == forms[1] and type(one) is nn.Parameter and one.layout == torch.strided


def _with_replaced(source: nn.Module, target: nn.Module, replaced: type[nn.Module]) -> nn.Module:
    if isinstance(source, replaced) or type(source) is not type(target):
        return source
    for name, child in source._modules.items():
        other = target._modules[name]
        if child is not None and other is not None:
            target._modules[name] = _with_replaced(child, other, replaced)
    return target
