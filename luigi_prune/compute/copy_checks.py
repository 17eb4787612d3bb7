"""What a copy of a network shares with the network that is copied, and what cannot be copied, by name."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from types import FunctionType
from typing import Any

from torch import Tensor, nn

from luigi_prune.errors import ConfigError, reason_of

_PARTS = ("_modules", "_parameters", "_buffers")


def uncopyable(network: nn.Module, error: Exception) -> ConfigError:
    """Return the error that names the attribute because of which copying `network` has raised `error`."""
    what = f"{next(_uncopyable(network), 'it')}: {reason_of(error)}"
    return ConfigError(f"the network cannot be copied: {what}; remove it, or define its __deepcopy__")


def _uncopyable(network: nn.Module) -> Iterator[str]:
    """Yield what `copy.deepcopy` fails on: attributes and tensors, and else modules, innermost first."""
    modules = list(network.named_modules())
    for name, module in modules:
        held = {**module._parameters, **module._buffers}
        held |= {key: value for key, value in vars(module).items() if key not in _PARTS}
        for key, value in held.items():
            if not _is_copied(value):
                yield f"{'.'.join(filter(None, [name, key]))!r} ({type(value).__name__})"
    for name, module in reversed(modules):
        if not _is_copied(module):
            yield f"{_called(name)} ({type(module).__name__})"


def _is_copied(value: Any) -> bool:
    if isinstance(value, Tensor) and not value.is_leaf:
        return True  # copied without its history
    try:
        copy.deepcopy(value)
    except Exception:
        return False
    return True


def check_apart(network: nn.Module, copied: nn.Module) -> None:
    """Raise ConfigError for a module or tensor of `copied` that is one of `network`: changing it would change both."""
    originals = {id(module) for module in network.modules()}
    tensors = {_memory(value) for value in (*network.parameters(), *network.buffers())} - {0}
    for name, module in copied.named_modules():
        own = (*module.parameters(recurse=False), *module.buffers(recurse=False))
        if id(module) in originals or any(_memory(value) in tensors for value in own):
            raise ConfigError(
                f"the network cannot be copied: {_called(name)} ({type(module).__name__}) is shared with its copy, so "
                "that pruning would change the network that is passed in; remove its __deepcopy__"
            )


def functions_of_original(network: nn.Module, copied: nn.Module) -> list[str]:
    """Return a line for hooks of `copied` that use modules of `network`; raise ConfigError for another such function.

    Copies of functions are the functions themselves, with the variables that they use.
    """
    originals = {id(module): name for name, module in network.named_modules()}
    watched = []
    for name, module in copied.named_modules():
        for key, value in vars(module).items():
            used = [originals[id(part)] for part in _used_by(value) if id(part) in originals]
            if used and key.endswith("_hooks"):
                watched.append(_called(name))
            elif used:
                where = ".".join(filter(None, [name, key]))
                raise ConfigError(
                    f"the network cannot be copied: {where!r} is a function that uses {_called(used[0])}, "
                    "and would go on using that of the network that is passed in; make it a method"
                )
    names = ", ".join(dict.fromkeys(watched))
    line = f"hooks of {names} use modules of the network that is passed in, and go on doing so in the result"
    return [line] if watched else []


def _called(name: str) -> str:
    return repr(name) if name else "the network"


def _memory(value: Tensor) -> int:
    try:
        return value.untyped_storage().data_ptr() if value.numel() else 0
    except (RuntimeError, NotImplementedError):  # of a kind without memory
        return 0


def _used_by(value: Any) -> Iterator[nn.Module]:
    """Yield the modules that functions use by their variables: `value`, or those that it holds."""
    held = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else [value]
    for function in held:
        if isinstance(function, FunctionType):
            try:
                variables = inspect.getclosurevars(function)
            except (ValueError, TypeError):
                continue
            defaults = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
            for used in (*variables.nonlocals.values(), *variables.globals.values(), *defaults):
                if isinstance(used, nn.Module):
                    yield used
