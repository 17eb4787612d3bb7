"""Hooks on calls of modules, whose inputs arrive in their order even if the call has them by name.

`head(input=x)` is `head(x)`; a plain hook of torch would see a call without inputs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle


def before_calls(module: nn.Module, hook: Callable[[nn.Module, tuple[Any, ...]], Any]) -> RemovableHandle:
    """Register `hook(module, inputs)`; inputs that it returns, a tuple or one value, replace those of the call."""

    def with_names(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
        inputs, named = in_order(module, inputs, named)
        found = hook(module, inputs)
        if found is None:
            return None
        return found if isinstance(found, tuple) else (found,), named

    return module.register_forward_pre_hook(with_names, with_kwargs=True)


def after_calls(module: nn.Module, hook: Callable[..., Any]) -> RemovableHandle:
    """Register `hook(module, inputs, output)`; an output that it returns replaces that of the call."""

    def with_names(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> Any:
        return hook(module, in_order(module, inputs, named)[0], output)

    return module.register_forward_hook(with_names, with_kwargs=True)


def in_order(
    module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return a call's inputs with those by name that continue the ones in order, and the other ones by name."""
    if not named:
        return inputs, named
    named = dict(named)
    for parameter in list(inspect.signature(module.forward).parameters.values())[len(inputs) :]:
        if parameter.kind is not parameter.POSITIONAL_OR_KEYWORD or parameter.name not in named:
            break
        inputs = (*inputs, named.pop(parameter.name))
    return inputs, named
