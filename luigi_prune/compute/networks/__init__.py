"""Networks; `build` calls the builder that a name stands for in the registry, with weights drawn from a seed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from luigi_prune import registry
from luigi_prune.compute.duplicates import without_wrappers, wrapper_of
from luigi_prune.compute.named import resolve
from luigi_prune.compute.networks.pretrained import load_weights
from luigi_prune.compute.networks.sizes import InputTooSmall
from luigi_prune.errors import ConfigError, LuigiPruneError, reason_of

__all__ = ["InputTooSmall", "build", "load_weights"]

log = logging.getLogger("luigi_prune")


def build(
    name: str, input_shape: Any, output_size: int, seed: int, kwargs: Mapping[str, Any] | None = None
) -> nn.Module:
    """Return the network `name` with weights drawn from `seed`; the global random state does not change.

    `input_shape` is one sample's shape without the batch axis, for instance (3, 32, 32), or a tuple or dictionary of
    the shapes of several inputs; `kwargs` are further keywords.
    Raises ConfigError for an unknown name or a foreign builder that fails, InputTooSmall for an input too small for the
    network's layers.
    """
    row = registry.find("network", name)
    several = isinstance(input_shape, Mapping) or not all(isinstance(size, int) for size in input_shape)
    foreign = registry.is_foreign(str(row.path))
    if several and not foreign and not row.several_inputs:
        raise ConfigError(f"network.name: {row.name} takes one input, but the data set has several: {input_shape}")
    builder = resolve(row.path)
    with torch.random.fork_rng(devices=[]):
        # Drawn on the CPU, so that a seed gives the same weights on every machine. Only the CPU's generator is seeded:
        # torch.manual_seed would also reseed the GPUs, whose state is not saved here.
        torch.default_generator.manual_seed(seed)
        try:
            network: nn.Module = builder(
                dict(input_shape) if isinstance(input_shape, Mapping) else tuple(input_shape),
                output_size,
                **{**row.settings, **(kwargs or {})},
            )
        except LuigiPruneError:
            raise
        except Exception as error:
            if not foreign and not row.open_ended:
                raise
            raise ConfigError(
                f"network.name: {registry.plain(name)} fails for inputs of shape {tuple(input_shape)} and "
                f"{output_size} outputs: {reason_of(error)}"
            ) from error
    if not isinstance(network, nn.Module):
        raise ConfigError(
            f"network.name: {registry.plain(name)}: expected a torch.nn.Module, got a {type(network).__name__}"
        )
    if kinds := {kind for module in network.modules() if (kind := wrapper_of(module))}:
        log.warning("network.name: %s: used without %s", registry.plain(name), " and ".join(sorted(kinds)))
        network = without_wrappers(network)
    return network
