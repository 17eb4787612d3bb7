"""The hooks of one run of a probe: they fill a `Structure`."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import wrap_torch_function
from torch.utils.hooks import RemovableHandle

from luigi_prune.compute.pruning.structure.channel_hooks import (
    TINY,
    Structure,
    axes_of,
    extremes_of,
    is_norm,
    is_reader,
    largest_of_channels,
    scaled,
    spread_columns,
)
from luigi_prune.compute.zeros import to_numbers


@dataclass(frozen=True, eq=False)
class _Output:
    """The output of the reader called `name`: its channel axis, and the largest and smallest value of every channel."""

    name: str
    reference: weakref.ref[Tensor]
    version: int
    axes: tuple[int, list[int]]
    extremes: tuple[Tensor, Tensor]

    def holds(self, value: Tensor, axes: tuple[int, list[int]]) -> bool:
        """Return whether `value`, which is this output, has not changed, and has its channels on the same axis."""
        return value._version == self.version and axes == self.axes


def _noise(like: Tensor) -> Tensor:
    """Return positive noise, the same for the same size."""
    drawn = torch.rand(like.shape, generator=torch.Generator().manual_seed(like.numel()))
    return drawn.add_(0.5).to(like)


class Taps:
    """The hooks of one run: they fill a `Structure` during the forward and the backward pass.

    Each output channel of a reader is divided by its largest value, and so is its gradient: zeros stay zeros and
    constants constant, and numbers neither underflow nor overflow at any depth. Hooks hold vectors over channels, no
    activations: a run takes the memory of one forward and backward.
    """

    def __init__(
        self,
        modules: dict[str, nn.Module],
        silence_unless: dict[str, Tensor] | None,
        same: float,
        *,
        find_sole_readers: bool,
        given_inputs: bool = False,
    ) -> None:
        """Observe `modules`. A BatchNorm channel that reads only zeros is silenced unless `silence_unless` marks it.

        Norms missing in `silence_unless` are left alone, all of them if it is None. `same`: the relative spread below
        which numbers are equal except for rounding. `find_sole_readers`: fill `Structure.normalised_by`.
        `given_inputs`: some inputs are those of the example, so that features made of inputs alone (flags, time steps)
        may be zero or constant by chance: noise replaces them. Then parameters of all other modules require gradients.
        """
        self.modules, self.structure, self._silence_unless = modules, Structure(), silence_unless or {}
        self._same, self._find_sole, self._given_inputs = same, find_sole_readers, given_inputs
        self.first: list[Tensor] = []  # outputs that no other output leads to: gradients have to reach these
        # The hooks only record; `finish` evaluates the records of all channels at once.
        self._calls: list[tuple[str, Tensor, Tensor]] = []  # module, largest and smallest value of its input channels
        self._call: dict[str, int] = {}  # index of each module's latest call
        self._gradients: list[tuple[int, Tensor]] = []  # index of the call, largest gradients of its output channels
        self._latest: dict[int, _Output] = {}  # outputs of readers by identity
        self._pairs: dict[str, str] = {}  # reader -> BatchNorm that reads its output
        self._through: dict[str, Tensor] = {}  # the part of a reader's gradient that comes through that BatchNorm
        self._through_all: dict[str, Tensor] = {}  # whether that part is the entire gradient
        self._handles: list[RemovableHandle] = []

    def release(self) -> None:
        """Remove the hooks on activations, and drop all tensors but those in `structure`.

        A hook refers to this object. If this object refers to the activation, that is a cycle through C++, which no
        garbage collector finds.
        """
        for handle in self._handles:
            handle.remove()
        for held in (self._handles, self.first, self._calls, self._gradients):
            held.clear()
        for named in (self._latest, self._through):
            named.clear()

    def before(self, name: str) -> Callable[..., Any]:
        @wrap_torch_function(lambda module, inputs: inputs)
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> Any:
            noise = _noise(inputs[0]) if self._given_inputs and not inputs[0].requires_grad else None
            inputs = inputs if noise is None else (noise, *inputs[1:])
            source = self._source_of(inputs[0])
            known = source is not None and source.holds(inputs[0], axes_of(module, inputs[0]))
            largest, smallest = source.extremes if source and known else extremes_of(module, inputs[0].detach())
            self._call[name] = len(self._calls)
            self._calls.append((name, largest, smallest))
            # Only during the call: a tied parameter would let other modules' outputs require gradients as well, and
            # the modules behind them would not be the first.
            self._require_gradients(module, True)
            if isinstance(module, _BatchNorm):
                if name in self._silence_unless:
                    self._silence(name, module, (largest == 0) & (smallest == 0))
                if self._find_sole and source is not None:
                    return self._before_norm(name, source.name, inputs)
            return None if noise is None else inputs

        return hook

    @staticmethod
    def _require_gradients(module: nn.Module, required: bool) -> None:
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(required)

    def _source_of(self, value: Tensor) -> _Output | None:
        """Return the record of `value` if it is the output of a reader."""
        source = self._latest.get(id(value))
        return source if source is not None and source.reference() is value else None

    def _silence(self, name: str, module: _BatchNorm, zero: Tensor) -> None:
        self.structure.silenced[name] = silenced = zero & ~self._silence_unless[name]
        for tensor in (module.weight, module.bias, module.running_mean):
            if isinstance(tensor, Tensor):
                tensor.data.masked_fill_(silenced, 0)

    def _before_norm(self, name: str, source: str, inputs: tuple[Any, ...]) -> Any:
        value = inputs[0]
        if not value.requires_grad:
            return None
        self._pairs[source] = name

        def collect(gradient: Tensor) -> None:
            if self._pairs[source] == name:
                self._through[source] = gradient

        view = value.view_as(value)
        self._handles.append(view.register_hook(collect))
        return (view, *inputs[1:])

    def after(self, name: str) -> Callable[..., Any]:
        @wrap_torch_function(lambda module, inputs, output: (output,))
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Any:
            self._require_gradients(module, False)
            rows, columns = self._shape(name)
            for vectors, shape in ((self.structure.reaching, (rows,)), (self.structure.linked, (rows, columns))):
                if name not in vectors:
                    vectors[name] = torch.zeros(shape, dtype=torch.bool, device=output.device)
                if not output.requires_grad:
                    vectors[name][:] = True
            if not output.requires_grad:
                return None
            call, reads = self._call[name], is_reader(module)
            if reads:
                largest, smallest = extremes_of(module, output.detach())
                size = torch.maximum(largest.abs(), smallest.abs())
                output = scaled(module, output, size)
                size = size.clamp_min(TINY)
                extremes = largest / size, smallest / size  # those of the scaled output, exactly: division is monotone
                axes = axes_of(module, output)
                self._latest[id(output)] = _Output(name, weakref.ref(output), output._version, axes, extremes)

            def collect(gradient: Tensor) -> Tensor | None:
                size = largest_of_channels(module, gradient)
                self._gradients.append((call, size))
                if not reads:
                    return None
                if name in self._through:
                    self._through_all[name] = (self._through.pop(name) == gradient).all()
                return scaled(module, gradient, size)

            self._handles.append(output.register_hook(collect))
            if self._given_inputs or not any(value.requires_grad for value in inputs if isinstance(value, Tensor)):
                self.first.append(output)
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
        for layer, is_all in zip(self._through_all, to_numbers(self._through_all.values()), strict=True):
            once = structure.calls[layer] == 1 and structure.calls[self._pairs[layer]] == 1
            if once and is_all:
                structure.normalised_by[layer] = self._pairs[layer]
        return [size, *(gradient for _, gradient in self._gradients)]
