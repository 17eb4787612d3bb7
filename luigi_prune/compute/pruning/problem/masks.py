"""Masks: per parameter a boolean tensor, True for kept entries. A pruned entry is zero and stays zero.

Only masks remove entries. A zero that no mask covers is a parameter like any other: it counts and can be trained.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from luigi_prune.compute.pruning.problem.layers import READERS
from luigi_prune.compute.zeros import count_true, counts_nonzero, counts_true, nonzero, to_numbers
from luigi_prune.errors import ConfigError

Masks = dict[str, Tensor]


def initial_masks(network: nn.Module, earlier: Masks | None) -> Masks:
    """Return a mask for every parameter: entries that `earlier` prunes stay pruned, all others are kept."""
    masks = {name: torch.ones_like(value, dtype=torch.bool) for name, value in network.named_parameters()}
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


def joined_masks(one: Masks, other: Masks) -> Masks:
    """Return masks that remove what either of the two removes."""
    both = {name: one[name] & other[name].to(one[name].device) for name in one.keys() & other.keys()}
    return one | other | both


def kept_counts(network: nn.Module, masks: Masks | None, parameters: Iterable[Tensor]) -> list[int]:
    """Return how many entries of each of these parameters of `network` are kept: all of one without a mask."""
    by_id = {id(value): masks[name] for name, value in network.named_parameters() if name in masks} if masks else {}
    parameters = list(parameters)
    counts = iter(counts_true(by_id[id(value)] for value in parameters if id(value) in by_id))
    return [next(counts) if id(value) in by_id else value.numel() for value in parameters]


def zeros_as_masks(network: nn.Module) -> Masks:
    """Return masks that remove the weights that are exactly zero, for a network that was pruned without masks.

    Zeros of biases and normalisations are kept: in a fresh network they are all zero.
    """
    return {name: nonzero(weight) for name, weight in _weights(network)}


def mostly_zero_weights(network: nn.Module, masks: Masks | None) -> dict[str, float]:
    """Return the share of exact zeros, at least a half, among the entries of weights that no mask removes."""
    masks, weights = masks or {}, dict(_weights(network))
    shares = {}
    for (name, weight), count in zip(weights.items(), counts_nonzero(weights.values()), strict=True):
        kept = weight.numel()
        if 2 * count <= kept and name in masks:
            mask = masks[name].to(weight.device)
            kept, count = count_true(mask), count_true(nonzero(weight) & mask)
        if kept and 2 * count <= kept:
            shares[name] = 1 - count / kept
    return shares


def _weights(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    for module in network.modules():
        weight = module._parameters.get("weight") if isinstance(module, READERS) else None
        if weight is not None and (name := names.pop(id(weight), None)) is not None:
            yield name, weight
