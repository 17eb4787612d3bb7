"""Copies of networks: of those that hold tensors with a history, without wrappers, and with weights of another."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.overrides import TorchFunctionMode


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

    `memo`: copies that are already made, by the id of what they replace, as for `copy.deepcopy`.
    """
    with _WithoutHistory():
        return copy.deepcopy(network, memo)


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


@torch.no_grad()
def with_weights_of(source: nn.Module, target: nn.Module, replaced: type[nn.Module]) -> nn.Module:
    """Return `target` with the parameters of `source`, and with its modules of the type `replaced`.

    Buffers and all other state are those of `target`, except for the running means of normalisations, into which
    pruning folds constants. The parameters keep the memory layout that they have in `target`.
    """
    network = _with_replaced(source, target, replaced)
    values = dict(source.named_parameters())
    for name, parameter in network.named_parameters():
        if values[name] is not parameter:
            parameter.copy_(values[name])
    modules = dict(source.named_modules())
    for name, module in network.named_modules():
        if isinstance(module, _NormBase) and isinstance(module.running_mean, Tensor):
            mean = modules[name].running_mean
            assert isinstance(mean, Tensor)
            module.running_mean.copy_(mean)
    return network


def _with_replaced(source: nn.Module, target: nn.Module, replaced: type[nn.Module]) -> nn.Module:
    if isinstance(source, replaced) or type(source) is not type(target):
        return source
    for name, child in source._modules.items():
        other = target._modules[name]
        if child is not None and other is not None:
            target._modules[name] = _with_replaced(child, other, replaced)
    return target
