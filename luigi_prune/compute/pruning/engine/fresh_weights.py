"""Fresh weights for a pruned network: a control that keeps the structure found by pruning and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import nn

from luigi_prune.compute.duplicates import duplicate
from luigi_prune.compute.pruning.low_rank.decomposed import Decomposed
from luigi_prune.errors import ConfigError
from luigi_prune.seeds import derive_seed

if TYPE_CHECKING:
    from luigi_prune.registry import MethodRow

Initialise = Callable[[nn.Module], nn.Module]
"""Returns a freshly initialised network of the form of its argument, which does not change."""


def initialiser(method: MethodRow, network: nn.Module, seed: int, given: Initialise | None = None) -> Initialise | None:
    """Return how the weights of `network` are drawn anew after pruning, or None if the method keeps them.

    `given`, or else by the modules' own `reset_parameters` from `seed`. Raises ConfigError if they do not draw all of
    the network's parameters, or if layers are replaced: these have no fresh form.
    """
    if not method.reinitialised:
        return None
    if method.granularity == "rank" or any(isinstance(module, Decomposed) for module in network.modules()):
        raise ConfigError(f"{method.name}: weights of replaced layers cannot be drawn anew")
    if given is not None:
        return given
    seed = derive_seed(seed, "scratch")
    initialised(network, method.name, seed)  # refused before pruning begins; kept, it would take memory until the end
    return lambda network: initialised(network, method.name, seed)


def initialised(network: nn.Module, method: str, seed: int) -> nn.Module:
    """Return a copy of `network`, on the CPU, initialised by its modules from `seed`."""
    fresh = duplicate(network).cpu()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for parameter in fresh.parameters():
            if parameter.is_floating_point() or parameter.is_complex():
                parameter.fill_(torch.nan)  # so that what no module draws shows
        for name, module in fresh.named_modules():
            reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
            if callable(reset):
                reset()
            elif any(True for _ in module.parameters(recurse=False)):
                raise ConfigError(
                    f"{method}: {name or 'the network'} ({type(module).__name__}) has parameters, but no "
                    "reset_parameters to draw them anew"
                )
        for name, parameter in fresh.named_parameters():
            if bool(parameter.isnan().any()):  # computed weights, for instance, of which it draws the result
                raise ConfigError(f"{method}: no reset_parameters of the network draws {name!r} anew")
    return fresh
