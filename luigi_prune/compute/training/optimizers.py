"""Optimizers by the names of torch.optim and from outside."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, Optimizer

from luigi_prune import registry
from luigi_prune.compute.named import resolve
from luigi_prune.errors import ConfigError

_FUSED = ("SGD", "Adam", "AdamW")  # with a kernel for one step of all parameters, on CPUs and GPUs
_EITHER = ("fused", "foreach", "capturable", "differentiable")  # keywords that choose another way to take a step
_KEEPS_ZEROS = ("SGD", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "Adagrad", "Adadelta")


def build_optimizer(
    name: str, kwargs: Mapping[str, Any], parameters: Iterable[nn.Parameter], *, scaled: bool = False
) -> Optimizer:
    """Return the optimizer `name`, fused if it can be; falsy keywords that it does not have are ignored.

    Lists, as YAML has no tuples, become tuples. Raises ConfigError for a keyword or value that the optimizer refuses.

    `scaled`: gradients are scaled, and a step whose gradients overflow is skipped.
    """
    optimizer_class = resolve(registry.find("optimizer", name).path)
    accepted = inspect.signature(optimizer_class).parameters
    keywords = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in kwargs.items()
        if key in accepted or value
    }
    parameters = list(parameters)
    if name in _FUSED and not set(_EITHER) & set(keywords) and all(map(_is_real, parameters)):
        keywords["fused"] = True
    if scaled and optimizer_class is SGD and keywords.get("dampening"):
        keywords["fused"] = False  # see _start_momenta; the first step is no usual one
    try:
        optimizer: Optimizer = optimizer_class(parameters, **keywords)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"training.optimizerKwargs: {registry.plain(name)} cannot be built with {keywords}: {error}"
        ) from error
    if scaled and type(optimizer) is SGD:
        _start_momenta(optimizer)
    return optimizer


def _start_momenta(optimizer: SGD) -> None:
    """Set all momenta to zero, from which a step leads to the same as the first step does.

    torch's fused SGD takes memory for the momenta at the first step and fills it there; if that step is skipped, the
    memory keeps what was in it before, and the next step uses that.
    """
    for group in optimizer.param_groups:
        if group["momentum"] and group["fused"]:
            for parameter in group["params"]:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter, requires_grad=False)


def needs_closure(name: str) -> bool:
    """Return whether the optimizer's step evaluates the loss repeatedly, as L-BFGS does."""
    return registry.find("optimizer", name).closure


def keeps_zeros(name: str, kwargs: Mapping[str, Any]) -> bool:
    """Return whether a step leaves every entry at zero whose weight was zero, and whose gradients were at all steps."""
    return name in _KEEPS_ZEROS and bool(kwargs.get("eps", True))  # without eps, zero is divided by zero


def _is_real(parameter: nn.Parameter) -> bool:
    return parameter.is_floating_point() and parameter.device.type in ("cpu", "cuda")
