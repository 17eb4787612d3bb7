"""Where a network refers to its modules, and replacing them there."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

SHELL = "_shell"  # the attribute in which an equivalent holds the module that it replaces
_OTHERS = ("_modules", "_parameters", "_buffers", SHELL)  # attributes that hold no module, or none elsewhere
_PLAIN = (bool, int, float, str, type(None))  # most attributes; this is asked for every one of a network, many times


def held_elsewhere(network: nn.Module) -> set[int]:
    """Return the ids of modules that modules of `network` hold in an attribute other than as a submodule."""
    attributes = (
        value
        for module in network.modules()
        for name, value in vars(module).items()
        if type(value) not in _PLAIN and name not in _OTHERS and not (isinstance(value, dict) and not value)
    )
    return {id(module) for value in attributes for module in _modules_in(value)}


def _modules_in(value: object, depth: int = 3) -> list[nn.Module]:
    """Return the modules in a value: itself, or entries of lists, sets and dictionaries, nested up to `depth`."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple | set | frozenset):
        return [module for entry in value for module in _modules_in(entry, depth - 1)] if depth else []
    return [value] if isinstance(value, nn.Module) else []


def replace_modules(network: nn.Module, new: Mapping[int, nn.Module]) -> nn.Module:
    """Return `network` with every module whose id is in `new` replaced, wherever it occurs."""
    if id(network) in new:
        return new[id(network)]
    for parent in list(network.modules()):
        for name, child in parent._modules.items():
            if child is not None and id(child) in new:
                parent._modules[name] = new[id(child)]
    return network


def replace_module(network: nn.Module, old: nn.Module, new: nn.Module) -> nn.Module:
    """Return `network` with every occurrence of `old` replaced by `new`; `new` itself if `old` is the network."""
    return replace_modules(network, {id(old): new})
