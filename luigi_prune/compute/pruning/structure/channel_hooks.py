"""Hooks that observe, in one run of a network, which channels are zero, constant, or without effect."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.overrides import wrap_torch_function

from luigi_prune.compute.pruning.problem.equivalents import RecurrentLinear
from luigi_prune.compute.pruning.problem.layers import READERS
from luigi_prune.compute.zeros import equal

TINY = 1e-30  # smaller than any number but zero


@dataclass
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


def _axes(module: nn.Module, value: Tensor) -> tuple[int, list[int]]:
    """Return the axis of `value`, an input or output of `module`, that runs over channels, and the other axes."""
    axis = value.dim() - 1
    if not isinstance(module, (nn.Linear, nn.LayerNorm)):
        axis -= len(module.kernel_size) if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)) else value.dim() - 2
    return axis, [other for other in range(value.dim()) if other != axis]


def largest_of_channels(module: nn.Module, value: Tensor) -> Tensor:
    """Return the largest absolute value of each channel of `value`, an input or output of `module`."""
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
    """Return a vector over a reader's input channels laid out like its weight's rows and columns, by groups."""
    groups = getattr(module, "groups", 1)
    weight = module.weight
    assert isinstance(weight, Tensor)
    per_group = channels.view(groups, -1)
    return per_group.repeat_interleave(weight.shape[0] // groups, dim=0)


class Taps:
    """The hooks of one run: they fill a `Structure` during the forward and the backward pass.

    Each output channel of a reader is divided by its largest value, and so is its gradient: zeros stay zeros and
    constants constant, and numbers neither underflow nor overflow at any depth.
    """

    def __init__(self, modules: dict[str, nn.Module], silence_unless: dict[str, Tensor] | None, same: float) -> None:
        """Observe `modules`. A BatchNorm channel that reads only zeros is silenced unless `silence_unless` marks it.

        Norms missing in `silence_unless` are left alone, all of them if it is None. `same`: the relative spread below
        which numbers are equal except for rounding.
        """
        self.modules, self.structure, self._silence_unless = modules, Structure(), silence_unless or {}
        self._same = same
        self.watched: list[Tensor] = []
        # The hooks only record; `finish` evaluates the records of all channels at once.
        self._calls: list[tuple[str, Tensor, Tensor]] = []  # module, largest and smallest value of its input channels
        self._gradients: list[tuple[int, Tensor]] = []  # index of the call, largest gradients of its output channels
        self._latest: dict[int, tuple[str, Tensor]] = {}  # outputs of readers by identity, to find their readers
        self._pairs: dict[str, str] = {}
        self._output_gradients: dict[str, Tensor] = {}  # the gradient of a reader's output
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
        self.structure.silenced[name] = silenced = zero & ~self._silence_unless[name]
        for tensor in (module.weight, module.bias, module.running_mean):
            if isinstance(tensor, Tensor):
                tensor.data.masked_fill_(silenced, 0)

    def _before_norm(self, name: str, inputs: tuple[Any, ...]) -> Any:
        value = inputs[0]
        source = self._latest.get(id(value))
        if source is None or source[1] is not value or not value.requires_grad:
            return None
        self._pairs[source[0]] = name
        view = value.view_as(value)
        view.register_hook(lambda gradient: self._through.__setitem__(name, gradient))
        return (view, *inputs[1:])

    def after(self, name: str) -> Callable[..., Any]:
        @wrap_torch_function(lambda module, inputs, output: (output,))
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Any:
            rows, columns = self._shape(name)
            for vectors, shape in ((self.structure.reaching, (rows,)), (self.structure.linked, (rows, columns))):
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
                self._output_gradients[name] = gradient
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
        """Complete `structure`; return the magnitudes of all observed values and gradients.

        `reached` False: the run had no gradient, so the output may depend on any channel.
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
        structure, alive_inputs = self.structure, alive.split(counts)
        for name, lives, same in zip(names, alive_inputs, constant.split(counts), strict=True):
            structure.zero_inputs[name] = ~lives & structure.zero_inputs.get(name, ~lives)
            structure.constant_inputs[name] = same & structure.constant_inputs.get(name, same)
            structure.calls[name] = structure.calls.get(name, 0) + 1
        for call, gradient in self._gradients:
            name, reaches = names[call], gradient != 0
            structure.reaching[name] |= reaches
            module, rows = self.modules[name], reaches[:, None]
            structure.linked[name] |= rows & spread_columns(module, alive_inputs[call]) if is_reader(module) else rows
        if not reached:
            for vectors in (structure.reaching, structure.linked):
                for name, vector in vectors.items():
                    vectors[name] = torch.ones_like(vector)
        self._find_sole_readers()
        return [size, *(gradient for _, gradient in self._gradients)]

    def _find_sole_readers(self) -> None:
        """Record each BatchNorm through which the full gradient of a layer's output comes: its only reader."""
        candidates: dict[tuple[str, str], tuple[Tensor, Tensor]] = {}
        for layer, norm in self._pairs.items():
            gradient, through = self._output_gradients.get(layer), self._through.get(norm)
            once = self.structure.calls[layer] == 1 and self.structure.calls[norm] == 1
            if once and gradient is not None and through is not None:
                candidates[layer, norm] = gradient, through
        for (layer, norm), is_only_reader in zip(candidates, equal(candidates.values()), strict=True):
            if is_only_reader:
                self.structure.normalised_by[layer] = norm
