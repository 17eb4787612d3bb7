"""Masks: per parameter a boolean tensor, True where the entry is kept. A removed entry is zero and stays zero."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from luigi_prune.compute.pruning.layers import READERS
from luigi_prune.compute.zeros import keep_only, nonzero, read
from luigi_prune.errors import ConfigError

Masks = dict[str, Tensor]


def initial_masks(network: nn.Module, held: Masks | None) -> Masks:
    """Return a mask for every parameter: what `held` removed stays removed, and so does a weight that is zero already.

    Zeros of biases and normalisations are kept unless `held` removes them: a fresh network's are all zero.
    """
    masks = {name: torch.ones_like(value, dtype=torch.bool) for name, value in network.named_parameters()}
    for module_name, module in network.named_modules():
        weight_name = f"{module_name}.weight" if module_name else "weight"
        if isinstance(module, READERS) and weight_name in masks:
            masks[weight_name] = nonzero(module.weight)
    for name, mask in (held or {}).items():
        if name not in masks or masks[name].shape != mask.shape:
            wanted = (
                f"its shape is {tuple(masks[name].shape)}" if name in masks else "the network has no such parameter"
            )
            raise ConfigError(f"mask {name!r} of shape {tuple(mask.shape)} does not fit: {wanted}")
        masks[name] &= mask.to(masks[name].device)
    return masks


def apply_masks(network: nn.Module, masks: Masks) -> None:
    """Set every removed entry of `network` to zero, in place."""
    for name, parameter in network.named_parameters():
        if name in masks:
            keep_only(parameter, masks[name])


def removals(masks: Masks) -> Masks:
    """Return the masks that remove anything."""
    whole = read(mask.all() for mask in masks.values())
    return {name: mask for (name, mask), all_kept in zip(masks.items(), whole, strict=True) if not all_kept}
