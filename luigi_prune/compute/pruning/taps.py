"""Watching one run of a network: the hooks that see which channels are zero, constant, or without effect."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.overrides import wrap_torch_function

from luigi_prune.compute.pruning.layers import READERS
from luigi_prune.compute.zeros import equal

TINY = 1e-30  # what no number but zero comes near


@dataclass
class Structure:
    """What one run found. Keys are module names; vectors run over a module's input or output channels."""

    zero_inputs: dict[str, Tensor] = field(default_factory=dict)  # exactly zero in every call
    constant_inputs: dict[str, Tensor] = field(
        default_factory=dict
    )  # one number per call, over all samples and positions
    reaching: dict[str, Tensor] = field(default_factory=dict)  # output channels that the network's output depends on
    linked: dict[str, Tensor] = field(
        default_factory=dict
    )  # (filters, channels): not zero at one end, reaching at other
    calls: dict[str, int] = field(default_factory=dict)
    silenced: dict[str, Tensor] = field(default_factory=dict)  # BatchNorm channels that read only what was cut
    normalised_by: dict[str, str] = field(default_factory=dict)  # module -> the BatchNorm that alone reads it


def is_norm(module: nn.Module) -> bool:
    """Return whether `module` scales and shifts channel by channel with parameters of its own."""
    if isinstance(module, nn.LayerNorm) and len(module.normalized_shape) != 1:
        return False
    known = isinstance(module, (_NormBase, nn.LayerNorm, nn.GroupNorm))
    return known and isinstance(module._parameters.get("weight"), nn.Parameter)


def is_reader(module: nn.Module) -> bool:
    """Return whether `module` is a linear map from input to output channels with a weight of its own."""
    return isinstance(module, READERS) and isinstance(module._parameters.get("weight"), nn.Parameter)


def _axes(module: nn.Module, value: Tensor) -> tuple[int, list[int]]:
    """Return the axis of `value`, an input or output of `module`, that runs over channels, and the other ones."""
    axis = value.dim() - 1
    if not isinstance(module, (nn.Linear, nn.LayerNorm)):
        axis -= len(module.kernel_size) if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)) else value.dim() - 2
    return axis, [other for other in range(value.dim()) if other != axis]


def largest_of_channels(module: nn.Module, value: Tensor) -> Tensor:
    """Return the largest absolute number of each channel of `value`, an input or output of `module`."""
    _, others = _axes(module, value)
    return value.abs().amax(others) if others else value.abs()


def scaled(module: nn.Module, value: Tensor, largest: Tensor) -> Tensor:
    """Return `value` with its channels divided by `largest`; those that are zero stay so."""
    axis, _ = _axes(module, value)
    return value / largest.clamp_min(TINY).view(-1, *[1] * (value.dim() - 1 - axis))


def channels_last(module: nn.Module, value: Tensor) -> Tensor:
    """Return `value`, an input or output of `module`, as (samples and positions, channels)."""
    axis, _ = _axes(module, value)
    return value.movedim(axis, -1).reshape(-1, value.shape[axis])


def spread_columns(module: nn.Module, channels: Tensor) -> Tensor:
    """Return a vector over a reader's input channels laid out as its weight's rows and columns, groups respected."""
    groups = getattr(module, "groups", 1)
    weight = module.weight
    assert isinstance(weight, Tensor)
    per_group = channels.view(groups, -1)
    return per_group.repeat_interleave(weight.shape[0] // groups, dim=0)


class Taps:
    """The hooks of one run: they fill a `Structure` while the network computes forward and backward.

    Each channel that a reader writes is divided by its largest number, and so is its gradient: zeros stay zeros and
    constants constant, and no depth makes numbers so small or large that they are lost.
    """

    def __init__(self, modules: dict[str, nn.Module], silence_unless: dict[str, Tensor] | None, same: float) -> None:
        """Watch `modules`. A BatchNorm channel that reads only zeros is silenced unless `silence_unless` marks it.

        Norms missing in `silence_unless` are left alone, all of them if it is None. `same`: the relative spread below
        which numbers are equal but for float rounding.
        """
        self.modules, self.found, self._silence_unless = modules, Structure(), silence_unless or {}
        self._same = same
        self.watched: list[Tensor] = []
        # The hooks only note what they see; `finish` draws the conclusions, for all channels at once.
        self._calls: list[tuple[str, Tensor, Tensor]] = []  # module, largest and smallest number of its input channels
        self._gradients: list[tuple[int, Tensor]] = []  # number of the call, largest of its output channels' gradients
        self._latest: dict[int, tuple[str, Tensor]] = {}  # outputs of readers by identity, to see what reads them
        self._pairs: dict[str, str] = {}
        self._whole: dict[str, Tensor] = {}  # the gradient of a reader's output
        self._through: dict[str, Tensor] = {}  # the part of it that comes through a BatchNorm

    def before(self, name: str) -> Callable[..., Any]:
        @wrap_torch_function(lambda module, inputs: inputs)
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> Any:
            value = inputs[0].detach()
            _, others = _axes(module, value)
            largest, smallest = (value.amax(others), value.amin(others)) if others else (value.clone(),) * 2
            self._calls.append((name, largest, smallest))
            if isinstance(module, _BatchNorm):
                if name in self._silence_unless:
                    self._silence(name, module, (largest == 0) & (smallest == 0))
                return self._before_norm(name, inputs)
            return None

        return hook

    def _silence(self, name: str, module: _BatchNorm, zero: Tensor) -> None:
        self.found.silenced[name] = gone = zero & ~self._silence_unless[name]
        for tensor in (module.weight, module.bias, module.running_mean):
            if isinstance(tensor, Tensor):
                tensor.data.masked_fill_(gone, 0)

    def _before_norm(self, name: str, inputs: tuple[Any, ...]) -> Any:
        value = inputs[0]
        source = self._latest.get(id(value))
        if source is None or source[1] is not value or not value.requires_grad:
            return None
        self._pairs[source[0]] = name
        seen = value.view_as(value)
        seen.register_hook(lambda gradient: self._through.__setitem__(name, gradient))
        return (seen, *inputs[1:])

    def after(self, name: str) -> Callable[..., Any]:
        @wrap_torch_function(lambda module, inputs, output: (output,))
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Any:
            rows, columns = self._shape(name)
            for vectors, shape in ((self.found.reaching, (rows,)), (self.found.linked, (rows, columns))):
                if name not in vectors:
                    vectors[name] = torch.zeros(shape, dtype=torch.bool, device=output.device)
                if not output.requires_grad:
                    vectors[name][:] = True
            if not output.requires_grad:
                return None
            call = max(number for number, (called, _, _) in enumerate(self._calls) if called == name)
            reads = is_reader(module)
            if reads:
                output = scaled(module, output, largest_of_channels(module, output.detach()))
                self._latest[id(output)] = (name, output)

            def collect(gradient: Tensor) -> Tensor | None:
                size = largest_of_channels(module, gradient)
                self._gradients.append((call, size))
                if not reads:
                    return None
                self._whole[name] = gradient
                return scaled(module, gradient, size)

            output.register_hook(collect)
            self.watched.append(output)
            return output if reads else None

        return hook

    def _shape(self, name: str) -> tuple[int, int]:
        module = self.modules[name]
        if not is_norm(module) and not is_reader(module):
            return int(getattr(module, "num_features", 0)), 1
        shape = module.get_parameter("weight").shape
        return shape[0], shape[1] if is_reader(module) else 1

    def finish(self, *, reached: bool) -> list[Tensor]:
        """Complete what was found; return the sizes of all numbers that were met: of values and of gradients.

        `reached` False: the run had no gradient to tell what the output depends on; any channel may be what it needs.
        """
        if not self._calls:
            return []
        names = [name for name, _, _ in self._calls]
        counts = [len(largest) for _, largest, _ in self._calls]
        largest = torch.cat([highest for _, highest, _ in self._calls])
        smallest = torch.cat([lowest for _, _, lowest in self._calls])
        size = torch.maximum(largest.abs(), smallest.abs())
        alive = size != 0
        constant = torch.isfinite(size) & (largest - smallest <= self._same * size)
        found, alive_inputs = self.found, alive.split(counts)
        for name, lives, same in zip(names, alive_inputs, constant.split(counts), strict=True):
            found.zero_inputs[name] = ~lives & found.zero_inputs.get(name, ~lives)
            found.constant_inputs[name] = same & found.constant_inputs.get(name, same)
            found.calls[name] = found.calls.get(name, 0) + 1
        for call, gradient in self._gradients:
            name, reaches = names[call], gradient != 0
            found.reaching[name] |= reaches
            module, rows = self.modules[name], reaches[:, None]
            found.linked[name] |= rows & spread_columns(module, alive_inputs[call]) if is_reader(module) else rows
        if not reached:
            for vectors in (found.reaching, found.linked):
                for name, vector in vectors.items():
                    vectors[name] = torch.ones_like(vector)
        self._find_sole_readers()
        return [size, *(gradient for _, gradient in self._gradients)]

    def _find_sole_readers(self) -> None:
        """Note each BatchNorm through which the whole gradient of a layer's output comes: nothing else reads it."""
        found: dict[tuple[str, str], tuple[Tensor, Tensor]] = {}
        for layer, norm in self._pairs.items():
            whole, through = self._whole.get(layer), self._through.get(norm)
            once = self.found.calls[layer] == 1 and self.found.calls[norm] == 1
            if once and whole is not None and through is not None:
                found[layer, norm] = whole, through
        for (layer, norm), sole in zip(found, equal(found.values()), strict=True):
            if sole:
                self.found.normalised_by[layer] = norm
