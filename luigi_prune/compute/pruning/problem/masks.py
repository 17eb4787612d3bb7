"""Masks: per parameter a boolean tensor, True for kept entries. A pruned entry is zero and stays zero.

Only masks remove entries. A zero that no mask covers is a parameter like any other: it counts and can be trained.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeVar, cast

import torch
from torch import Tensor, nn

from luigi_prune.compute.pruning.problem.layers import READERS
from luigi_prune.compute.zeros import count_true, counts_nonzero, counts_true, nonzero
from luigi_prune.errors import ConfigError

Masks = dict[str, Tensor]


class _Count(NamedTuple):
    """The number of entries that a mask keeps, as long as nobody writes to it."""

    mask: weakref.ref[Tensor]
    version: int
    kept: int


_COUNTS: ContextVar[dict[int, _Count] | None] = ContextVar("_COUNTS", default=None)
_Function = TypeVar("_Function", bound=Callable[..., Any])


def remembering_counts(function: _Function) -> _Function:
    """Return `function` changed so that `kept_of` counts every mask once while it runs."""

    @functools.wraps(function)
    def remembering(*args: Any, **kwargs: Any) -> Any:
        if _COUNTS.get() is not None:
            return function(*args, **kwargs)
        token = _COUNTS.set({})
        try:
            return function(*args, **kwargs)
        finally:
            _COUNTS.reset(token)

    return cast("_Function", remembering)


def kept_of(masks: Iterable[Tensor]) -> list[int]:
    """Return the number of entries that each mask keeps; see `remembering_counts`."""
    masks = list(masks)
    if (known := _COUNTS.get()) is None or any(mask.is_inference() for mask in masks):
        return counts_true(masks)

    def is_known(mask: Tensor) -> bool:
        count = known.get(id(mask))
        return count is not None and count.mask() is mask and count.version == mask._version

    new = {id(mask): mask for mask in masks if not is_known(mask)}
    for mask, count in zip(new.values(), counts_true(new.values()), strict=True):
        known[id(mask)] = _Count(weakref.ref(mask), mask._version, count)
    return [known[id(mask)].kept for mask in masks]


def initial_masks(network: nn.Module, earlier: Masks | None) -> Masks:
    """Return a mask for every parameter: entries that `earlier` prunes stay pruned, all others are kept."""
    masks = _full_masks(dict(network.named_parameters()))
    for name, mask in (earlier or {}).items():
        if name not in masks or masks[name].shape != mask.shape:
            why = f"its shape is {tuple(masks[name].shape)}" if name in masks else "the network has no such parameter"
            raise ConfigError(f"mask {name!r} of shape {tuple(mask.shape)} does not fit: {why}")
        masks[name] = masks[name] & mask.to(masks[name].device)
    return masks


def _full_masks(parameters: dict[str, nn.Parameter]) -> Masks:
    """Return masks that keep everything: parts of one tensor per device, never written to."""
    by_device: dict[torch.device, list[str]] = {}
    for name, value in parameters.items():
        by_device.setdefault(value.device, []).append(name)
    found: Masks = {}
    for device, names in by_device.items():
        sizes = [parameters[name].numel() for name in names]
        parts = torch.ones(sum(sizes), dtype=torch.bool, device=device).split(sizes)
        found |= {name: part.view(parameters[name].shape) for name, part in zip(names, parts, strict=True)}
    if (known := _COUNTS.get()) is not None:
        known.update((id(mask), _Count(weakref.ref(mask), mask._version, mask.numel())) for mask in found.values())
    return {name: found[name] for name in parameters}


def removals(masks: Masks) -> Masks:
    """Return the masks that prune at least one entry."""
    counts = kept_of(masks.values())
    return {name: mask for (name, mask), count in zip(masks.items(), counts, strict=True) if count < mask.numel()}


def joined_masks(one: Masks, other: Masks) -> Masks:
    """Return masks that remove what either of the two removes."""
    both = {name: one[name] & other[name].to(one[name].device) for name in one.keys() & other.keys()}
    return one | other | both


def kept_counts(network: nn.Module, masks: Masks | None, parameters: Iterable[Tensor]) -> list[int]:
    """Return how many entries of each of these parameters of `network` are kept: all of one without a mask."""
    by_id = {id(value): masks[name] for name, value in network.named_parameters() if name in masks} if masks else {}
    parameters = list(parameters)
    counts = iter(kept_of(by_id[id(value)] for value in parameters if id(value) in by_id))
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
