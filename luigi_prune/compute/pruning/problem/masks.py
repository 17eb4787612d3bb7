"""Masks: per parameter a boolean tensor, True for kept entries. A pruned entry is zero and stays zero."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from luigi_prune.compute.pruning.problem.layers import READERS
from luigi_prune.compute.zeros import nonzero, to_numbers
from luigi_prune.errors import ConfigError

Masks = dict[str, Tensor]


def initial_masks(network: nn.Module, earlier: Masks | None) -> Masks:
    """Return a mask for every parameter: entries that `earlier` prunes stay pruned, and so do weights that are zero.

    Zeros of biases and normalisations are kept unless `earlier` prunes them: in a fresh network they are all zero.
    """
    masks = {name: torch.ones_like(value, dtype=torch.bool) for name, value in network.named_parameters()}
    for module_name, module in network.named_modules():
        weight_name = f"{module_name}.weight" if module_name else "weight"
        if isinstance(module, READERS) and weight_name in masks:
            masks[weight_name] = nonzero(module.weight)
    for name, mask in (earlier or {}).items():
        if name not in masks or masks[name].shape != mask.shape:
            why = f"its shape is {tuple(masks[name].shape)}" if name in masks else "the network has no such parameter"
            raise ConfigError(f"mask {name!r} of shape {tuple(mask.shape)} does not fit: {why}")
        masks[name] &= mask.to(masks[name].device)
    return masks


def removals(masks: Masks) -> Masks:
    """Return the masks that prune at least one entry."""
    all_kept = to_numbers(mask.all() for mask in masks.values())
    return {name: mask for (name, mask), is_all_kept in zip(masks.items(), all_kept, strict=True) if not is_all_kept}
