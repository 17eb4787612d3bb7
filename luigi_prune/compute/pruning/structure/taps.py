"""The hooks of one run of a probe: they fill a `Structure`."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
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
    divided,
    extremes_of,
    is_norm,
    is_reader,
    largest_of_channels,
    magnitude,
    pairs_of,
)
from luigi_prune.compute.zeros import to_numbers


@dataclass(frozen=True, eq=False)
class _Output:
    """The output of the reader called `name`: its channel axis, and the extremes of its channels before scaling."""

    name: str
    reference: weakref.ref[Tensor]
    version: int
    axes: tuple[int, list[int]]
    extremes: tuple[Tensor, Tensor]
    divisor: Tensor  # of the extremes, as of the output: those of the scaled output, exactly, as division is monotone
    size: Tensor  # the larger absolute value of the extremes

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
        may_silence: dict[str, Tensor] | None,
        same: float,
        *,
        find_sole_readers: bool,
        given_inputs: bool = False,
    ) -> None:
        """Observe `modules`. A BatchNorm channel that reads only zeros is silenced if `may_silence` marks it.

        Norms missing in `may_silence` are left alone, all of them if it is None. `same`: the relative spread below
        which numbers are equal except for rounding. `find_sole_readers`: fill `Structure.normalised_by`.
        `given_inputs`: some inputs are those of the example, so that features made of inputs alone (flags, time steps)
        may be zero or constant by chance: noise replaces them. Then parameters of all other modules require gradients.
        """
        self.modules, self.structure = modules, Structure()
        self._may_silence = may_silence or {}
        self._same, self._find_sole, self._given_inputs = same, find_sole_readers, given_inputs
        self.first: list[Tensor] = []  # outputs that no other output leads to: gradients have to reach these
        # The hooks only record; `finish` evaluates the records of all channels at once.
        # Module, largest and smallest value of its input channels, and what both are to be divided by.
        self._calls: list[tuple[str, Tensor, Tensor, Tensor | None]] = []
        self._without_gradient: set[str] = set()
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
            self._calls.append((name, largest, smallest, source.divisor if source and known else None))
            # Only during the call: a tied parameter would let other modules' outputs require gradients as well, and
            # the modules behind them would not be the first.
            self._require_gradients(module, True)
            if isinstance(module, _BatchNorm):
                if name in self._may_silence:
                    size = source.size if source and known else magnitude(largest, smallest)
                    self._silence(name, module, size == 0)
                if self._find_sole and source is not None:
                    return self._before_norm(name, source.name, inputs)
            return None if noise is None else inputs

        return hook

    @staticmethod
    def _require_gradients(module: nn.Module, required: bool) -> None:
        for parameter in module._parameters.values():
            if parameter is not None:
                parameter.requires_grad_(required)

    def _source_of(self, value: Tensor) -> _Output | None:
        """Return the record of `value` if it is the output of a reader."""
        source = self._latest.get(id(value))
        return source if source is not None and source.reference() is value else None

    def _silence(self, name: str, module: _BatchNorm, zero: Tensor) -> None:
        self.structure.silenced[name] = silenced = zero & self._may_silence[name]
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
            if not output.requires_grad:
                self._without_gradient.add(name)
                return None
            call, reads = self._call[name], is_reader(module)
            if reads:
                extremes = extremes_of(module, output.detach())
                size = magnitude(*extremes)
                divisor = size.clamp_min(TINY)
                output = divided(module, output, divisor)
                axes = axes_of(module, output)
                self._latest[id(output)] = _Output(
                    name, weakref.ref(output), output._version, axes, extremes, divisor, size
                )

            def collect(gradient: Tensor) -> Tensor | None:
                size = largest_of_channels(module, gradient)
                self._gradients.append((call, size))
                if not reads:
                    return None
                if name in self._through:
                    self._through_all[name] = (self._through.pop(name) == gradient).all()
                return divided(module, gradient, size.clamp_min(TINY))

            self._handles.append(output.register_hook(collect))
            if self._given_inputs or not any(value.requires_grad for value in inputs if isinstance(value, Tensor)):
                self.first.append(output)
            return output if reads else None

        return hook

    def _filters(self, name: str) -> int:
        module = self.modules[name]
        if not is_norm(module) and not is_reader(module):
            return int(getattr(module, "num_features", 0))
        return len(module.get_parameter("weight"))

    def finish(self, *, reached: bool) -> list[Tensor]:
        """Complete `structure`; return the magnitudes of all observed values and gradients.

        `reached` False: the run had no gradient, so the output may depend on any channel.
        """
        if not self._calls:
            return []
        names = [name for name, *_ in self._calls]
        counts = [len(largest) for _, largest, *_ in self._calls]
        largest, smallest = self._extremes()
        size = magnitude(largest, smallest)
        alive = size != 0
        constant = torch.isfinite(size) & (largest - smallest <= self._same * size)
        structure, alive_inputs = self.structure, alive.split(counts)
        for name, zero, same in zip(names, (~alive).split(counts), constant.split(counts), strict=True):
            first = name not in structure.calls
            structure.zero_inputs[name] = zero if first else zero & structure.zero_inputs[name]
            structure.constant_inputs[name] = same if first else same & structure.constant_inputs[name]
            structure.calls[name] = structure.calls.get(name, 0) + 1
        self._find_used(names, alive_inputs, reached=reached)
        for layer, is_all in zip(self._through_all, to_numbers(self._through_all.values()), strict=True):
            once = structure.calls[layer] == 1 and structure.calls[self._pairs[layer]] == 1
            if once and is_all:
                structure.normalised_by[layer] = self._pairs[layer]
        return [size, *(gradient for _, gradient in self._gradients)]

    def _extremes(self) -> tuple[Tensor, Tensor]:
        """Return the largest and the smallest value of the input channels of all calls, scaled as these read them."""
        largest = torch.cat([highest for _, highest, _, _ in self._calls])
        smallest = torch.cat([lowest for _, _, lowest, _ in self._calls])
        one = largest.new_ones(max(len(values) for _, values, *_ in self._calls))
        divisors = [one[: len(values)] if divisor is None else divisor for _, values, _, divisor in self._calls]
        divisor = torch.cat(divisors)
        return largest / divisor, smallest / divisor

    def _find_used(self, names: list[str], alive_inputs: Sequence[Tensor], *, reached: bool) -> None:
        """Fill `reaching` and `linked` of the structure."""
        structure = self.structure
        sizes = [len(gradient) for _, gradient in self._gradients]
        reaches = (torch.cat([gradient for _, gradient in self._gradients]) != 0).split(sizes) if sizes else ()
        for (call, _), rows in zip(self._gradients, reaches, strict=True):
            name, module = names[call], self.modules[names[call]]
            linked = pairs_of(module, rows, alive_inputs[call]) if is_reader(module) else rows[:, None]
            first = name not in structure.reaching
            structure.reaching[name] = rows if first else rows | structure.reaching[name]
            structure.linked[name] = linked if first else linked | structure.linked[name]
        device = alive_inputs[0].device
        for name in structure.calls:
            used = name in self._without_gradient or not reached
            if used or name not in structure.reaching:
                filters, module = self._filters(name), self.modules[name]
                columns = module.get_parameter("weight").shape[1] if is_reader(module) else 1
                structure.reaching[name] = torch.full((filters,), used, device=device)
                structure.linked[name] = torch.full((filters, columns), used, device=device)
