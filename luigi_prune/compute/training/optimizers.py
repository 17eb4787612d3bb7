"""Optimizers by the names of torch.optim and from outside."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer

from luigi_prune import registry
from luigi_prune.compute.named import resolve
from luigi_prune.errors import ConfigError


def build_optimizer(name: str, kwargs: Mapping[str, Any], parameters: Iterable[nn.Parameter]) -> Optimizer:
    """Return the optimizer `name` for `parameters`; falsy keywords that it does not have are ignored.

    Lists, as YAML has no tuples, become tuples. Raises ConfigError for a keyword or value that the optimizer refuses.
    """
    optimizer_class = resolve(registry.find("optimizer", name).path)
    accepted = inspect.signature(optimizer_class).parameters
    keywords = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in kwargs.items()
        if key in accepted or value
    }
    try:
        optimizer: Optimizer = optimizer_class(parameters, **keywords)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"training.optimizerKwargs: {registry.plain(name)} cannot be built with {keywords}: {error}"
        ) from error
    return optimizer


def needs_closure(name: str) -> bool:
    """Return whether the optimizer's step evaluates the loss repeatedly, as L-BFGS does."""
    return registry.find("optimizer", name).closure
