"""Fresh weights for a pruned network: a control that keeps the structure found by pruning and nothing else."""

from __future__ import annotations

import torch
from torch import nn

from luigi_prune.compute.duplicates import duplicate
from luigi_prune.compute.masked import apply_masks
from luigi_prune.compute.pruning.engine.pruning_result import PruningResult
from luigi_prune.compute.state import load_state
from luigi_prune.errors import ConfigError


def draw_anew(result: PruningResult, method: str, seed: int, fresh: nn.Module | None = None) -> None:
    """Give a pruned network the state of a freshly initialised one, in place; pruned entries stay zero.

    `fresh`: such a network, of the unpruned form. Without one, the modules' own `reset_parameters` draw from `seed`;
    raises ConfigError if a module with parameters has none. Networks with replaced layers have no fresh form.
    """
    if result.structure:
        raise ConfigError(f"{method}: weights of replaced layers cannot be drawn anew")
    fresh = initialised(result.network, method, seed) if fresh is None else fresh
    load_state(result.network, fresh.state_dict())
    apply_masks(result.network, result.masks)


def initialised(network: nn.Module, method: str, seed: int) -> nn.Module:
    """Return a copy of `network`, on the CPU, initialised by its modules from `seed`."""
    fresh = duplicate(network).cpu()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for name, module in fresh.named_modules():
            reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
            if callable(reset):
                reset()
            elif any(True for _ in module.parameters(recurse=False)):
                raise ConfigError(
                    f"{method}: {name or 'the network'} ({type(module).__name__}) has parameters, but no "
                    "reset_parameters to draw them anew"
                )
    return fresh
