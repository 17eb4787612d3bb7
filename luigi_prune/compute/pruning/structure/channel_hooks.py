"""Channels: what a run of the probe observes of them, and the axis on which each kind of module has them."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from luigi_prune.compute.pruning.problem.equivalents import RecurrentLinear
from luigi_prune.compute.pruning.problem.layers import READERS
from luigi_prune.compute.zeros import all_true, equal

TINY = 1e-30  # smaller than any number but zero


@dataclass(eq=False)
class Structure:
    """The observations of one run. Keys are module names; vectors run over a module's input or output channels."""

    zero_inputs: dict[str, Tensor] = field(default_factory=dict)  # exactly zero in every call
    constant_inputs: dict[str, Tensor] = field(
        default_factory=dict
    )  # one number per call, over all samples and positions
    reaching: dict[str, Tensor] = field(default_factory=dict)  # output channels that the network's output depends on
    linked: dict[str, Tensor] = field(default_factory=dict)  # (filters, channels): input not zero, output reaching
    calls: dict[str, int] = field(default_factory=dict)
    silenced: dict[str, Tensor] = field(default_factory=dict)  # BatchNorm channels that read only pruned filters
    normalised_by: dict[str, str] = field(default_factory=dict)  # module -> BatchNorm that is its only reader

    _is_full: bool | None = field(default=None, init=False)

    def is_full(self) -> bool:
        """Return whether every channel is used and none is constant, so that propagation changes nothing."""
        if self._is_full is None:
            varying = (~constant for constant in self.constant_inputs.values())
            linked = (pairs.all().view(1) for pairs in self.linked.values())
            self._is_full = all_true(chain(self.reaching.values(), varying, linked))
        return self._is_full

    def same_as(self, other: Structure) -> bool:
        """Return whether two runs observed the same."""
        if self.calls != other.calls or self.normalised_by != other.normalised_by:
            return False
        vectors = [
            (one, another)
            for name in ("zero_inputs", "constant_inputs", "reaching", "linked", "silenced")
            for one, another in [(getattr(self, name), getattr(other, name))]
        ]
        if any(one.keys() != another.keys() for one, another in vectors):
            return False
        return all(equal((one[name], another[name]) for one, another in vectors for name in one))


def is_norm(module: nn.Module) -> bool:
    """Return whether `module` scales and shifts each channel with its own parameters."""
    if isinstance(module, nn.LayerNorm) and len(module.normalized_shape) != 1:
        return False
    known = isinstance(module, (_NormBase, nn.LayerNorm, nn.GroupNorm))
    return known and isinstance(module._parameters.get("weight"), nn.Parameter)


def is_reader(module: nn.Module) -> bool:
    """Return whether `module` is a linear map from input to output channels with its own weight.

    Those of recurrent modules are not: their input is zero in the first steps, which may be all of the example's.
    """
    known = isinstance(module, READERS) and not isinstance(module, RecurrentLinear)
    return known and isinstance(module._parameters.get("weight"), nn.Parameter)


def axes_of(module: nn.Module, value: Tensor) -> tuple[int, list[int]]:
    """Return the axis of `value`, an input or output of `module`, that runs over channels, and the other axes.

    Subclasses of LayerNorm may move channels from the second axis to the last: the one whose size fits is theirs.
    """
    axis = value.dim() - 1
    if isinstance(module, nn.LayerNorm) and value.shape[-1] != module.normalized_shape[0]:
        axis = 1
    elif not isinstance(module, (nn.Linear, nn.LayerNorm)):
        axis -= len(module.kernel_size) if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)) else value.dim() - 2
    return axis, [other for other in range(value.dim()) if other != axis]


def largest_of_channels(module: nn.Module, value: Tensor) -> Tensor:
    """Return the largest absolute value of each channel of `value`, an input or output of `module`."""
    _, others = axes_of(module, value)
    return value.abs().amax(others) if others else value.abs()


def extremes_of(module: nn.Module, value: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest and the smallest value of each channel of `value`, an input or output of `module`."""
    _, others = axes_of(module, value)
    return (value.amax(others), value.amin(others)) if others else (value.clone(),) * 2


def magnitude(largest: Tensor, smallest: Tensor) -> Tensor:
    """Return the largest absolute values, given the largest and the smallest values."""
    return torch.maximum(largest, -smallest)


def divided(module: nn.Module, value: Tensor, divisors: Tensor) -> Tensor:
    """Return `value` with its channels divided by `divisors`."""
    axis, _ = axes_of(module, value)
    return value / divisors.view(-1, *[1] * (value.dim() - 1 - axis))


def channels_last(module: nn.Module, value: Tensor) -> Tensor:
    """Return `value`, an input or output of `module`, as (samples and positions, channels)."""
    axis, _ = axes_of(module, value)
    return value.movedim(axis, -1).reshape(-1, value.shape[axis])


def pairs_of(module: nn.Module, filters: Tensor, channels: Tensor) -> Tensor:
    """Return which pairs of a reader's filters and of the channels that they read are in both vectors."""
    if getattr(module, "groups", 1) == 1:
        return filters[:, None] & channels
    return filters[:, None] & spread_columns(module, channels)


def spread_columns(module: nn.Module, channels: Tensor) -> Tensor:
    """Return a vector over a reader's input channels laid out like its weight's rows and columns, by groups."""
    groups = getattr(module, "groups", 1)
    weight = module.weight
    assert isinstance(weight, Tensor)
    per_group = channels.view(groups, -1)
    return per_group.repeat_interleave(weight.shape[0] // groups, dim=0)
