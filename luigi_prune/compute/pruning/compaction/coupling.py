"""Which channels of which modules stand in one place, so that they can only be removed together.

A residual sum adds channel c of two layers, a concatenation puts channel c of one layer at place c + 64, flattening
turns a channel into 49 features, shuffling permutes. All this is measured, not traced. The network runs once, with the
output of every module that has channels replaced by positive noise. Between these cuts there is only code without
weights. For each input of such a module, gradients of three weighted sums over its channels (weights: one, the number
of the channel, a random number) show at each cut output which channel of the input a channel arrives at, and whether it
arrives at that one only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn
from torch.overrides import wrap_torch_function

from luigi_prune.compute.duplicates import duplicate
from luigi_prune.compute.network_inputs import Inputs, call_on_copy, map_tensors
from luigi_prune.compute.pruning.compaction.taps_of_channels import (
    INPUT,
    OUTPUT,
    SIDES,
    channel_axis,
    is_tap,
    passes_channels,
    uniform,
    why_fixed,
    width,
)
from luigi_prune.compute.pruning.problem.call_hooks import after_calls, before_calls
from luigi_prune.compute.pruning.problem.layers import evaluating
from luigi_prune.compute.pruning.structure.structure_probe import _Leaky

_TOLERANCE = 1e-4  # of a weighted sum of gradients in single precision
_HALF = (torch.float16, torch.bfloat16)
_MIXED = "they are mixed with others outside of layers, as attention does"


@dataclass(eq=False)
class Places:
    """The places of a network's channels. A place is a number; all channels in it are removed together or not at all.

    `of`: (module name, side) -> the place of each channel. `fixed`: place -> why it cannot be removed.
    """

    of: dict[tuple[str, str], np.ndarray]
    fixed: dict[int, str] = field(default_factory=dict)


@dataclass(eq=False)
class _Cut:
    """One call of a module: its input as it arrives, and the noise in place of its output."""

    name: str
    input: Tensor
    input_axis: int
    noise: Tensor
    output_axis: int


def find_places(network: nn.Module, example: Inputs) -> Places:
    """Return the places of all channels of `network`, which is in evaluation mode's layout and does not change.

    Raises what the network raises if it cannot run with noise in place of activations.
    """
    copy = duplicate(network).requires_grad_(False)
    if any(parameter.dtype in _HALF for parameter in copy.parameters()):  # gradients are compared to four digits
        copy, example = copy.float(), map_tensors(lambda x: x.float() if x.is_floating_point() else x, example)
    for module in copy.modules():
        if callable(simplify := getattr(module, "simplify_for_probe", None)):
            simplify()
    taps = {name: module for name, module in copy.named_modules() if is_tap(module)}
    _fill_others(copy, taps)
    cuts = _run(copy, taps, example)
    called = {cut.name for cut in cuts}
    nodes = _Nodes({name: module for name, module in taps.items() if name in called})
    for cut in cuts:
        for source, at_source, at_input, mixed in _arrivals(cut, cuts, width(taps[cut.name], INPUT)):
            if mixed is not None:
                nodes.fix(source, OUTPUT, mixed, _MIXED)
            nodes.join((source, OUTPUT, at_source), (cut.name, INPUT, at_input))
    for name, module in nodes.modules.items():
        every = np.arange(width(module, OUTPUT))
        if passes_channels(module):
            nodes.join((name, INPUT, every), (name, OUTPUT, every))
        if why := why_fixed(module):
            for side in SIDES:
                nodes.fix(name, side, np.arange(width(module, side)), why)
    _join_tied(copy, nodes)
    return nodes.places()


def _fill_others(network: nn.Module, taps: dict[str, nn.Module]) -> None:
    """Set parameters outside of taps to positive numbers: a scale of zero would hide what it multiplies."""
    inside = {id(parameter) for module in taps.values() for parameter in module.parameters(recurse=False)}
    generator = torch.Generator().manual_seed(1)
    for parameter in network.parameters():
        if id(parameter) not in inside and parameter.is_floating_point():
            parameter.data.copy_(uniform(parameter.shape, parameter, generator))


def _run(network: nn.Module, taps: dict[str, nn.Module], example: Inputs) -> list[_Cut]:
    """Return the cuts of one run, in their order."""
    cuts: list[_Cut] = []
    arrived: dict[str, Tensor] = {}
    generator = torch.Generator().manual_seed(0)

    def before(name: str) -> Callable[..., None]:
        @wrap_torch_function(lambda module, inputs: inputs)
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            arrived[name] = inputs[0] * 1  # the network may change the input in place afterwards

        return hook

    def after(name: str) -> Callable[..., Tensor]:
        @wrap_torch_function(lambda module, inputs, output: (output,))
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
            noise = uniform(output.shape, output, generator).requires_grad_()
            value = arrived.pop(name)
            cuts.append(_Cut(name, value, channel_axis(module, value), noise, channel_axis(module, output)))
            return noise.clone()  # for operations in place

        return hook

    with ExitStack() as stack, torch.enable_grad(), evaluating(network):
        for name, module in taps.items():
            stack.callback(before_calls(module, before(name)).remove)
            stack.callback(after_calls(module, after(name)).remove)
        with _Leaky():
            call_on_copy(network, example)
    return cuts


def _arrivals(
    sink: _Cut, cuts: list[_Cut], channels: int
) -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray | None]]:
    """Yield (source, its channels, the channels of `sink`'s input that they arrive at, those that are mixed)."""
    if not sink.input.requires_grad:
        return
    number = torch.arange(channels, dtype=torch.float64)
    codes = [torch.ones(channels, dtype=torch.float64), (number + 0.5) / channels, _random(channels)]
    sums = [_gradients(sink, cuts, code) for code in codes]
    for index, source in enumerate(cuts):
        one, numbered, drawn = (each[index] for each in sums)
        if one is None or numbered is None or drawn is None:
            continue
        size = one.abs() if float(one.abs().max()) > 0 else drawn.abs()
        connected = size > 1e-9 * size.max()
        place = (numbered / one * channels - 0.5).round().nan_to_num(nan=0.0).long().clamp(0, channels - 1)
        alone = connected & ((codes[2][place] * one - drawn).abs() <= _TOLERANCE * one.abs())
        if bool(alone[connected].all()):
            chosen = connected.nonzero()[:, 0]
            yield source.name, chosen.numpy(), place[chosen].numpy(), None
            continue
        spread = _as_features(sink, source, cuts, index, len(one), channels)
        mixed = None if spread is not None else connected.nonzero()[:, 0].numpy()
        owner, features = spread if spread is not None else (np.empty(0, int), np.empty(0, int))
        yield source.name, owner, features, mixed


def _as_features(
    sink: _Cut, source: _Cut, cuts: list[_Cut], index: int, from_channels: int, to_channels: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return (channel, feature) of all features of a flattened map, None if the input is not one.

    Channels come first in memory as a rule, features of one position if the network moves them last.
    """
    if to_channels % from_channels or to_channels == from_channels:
        return None
    feature = torch.arange(to_channels)
    for owner in (feature // (to_channels // from_channels), feature % from_channels):
        random = _random(from_channels)
        one = _gradients(sink, cuts, torch.ones(to_channels, dtype=torch.float64))[index]
        drawn = _gradients(sink, cuts, random[owner])[index]
        if one is None or drawn is None:
            return None
        if bool(((random * one - drawn).abs() <= _TOLERANCE * one.abs()).all()):
            return owner.numpy(), feature.numpy()
    return None


def _random(count: int) -> Tensor:
    return torch.rand(count, generator=torch.Generator().manual_seed(count), dtype=torch.float64) + 0.5


def _gradients(sink: _Cut, cuts: list[_Cut], code: Tensor) -> list[Tensor | None]:
    """Return, for every cut, the gradient of the sum of `sink`'s input, its channels weighted, by output channel."""
    shape = [1] * sink.input.dim()
    shape[sink.input_axis] = -1
    weights = code.to(sink.input).view(shape).expand_as(sink.input)
    found = torch.autograd.grad(sink.input, [cut.noise for cut in cuts], weights, retain_graph=True, allow_unused=True)
    return [
        None if gradient is None else _sum_by_channel(gradient.double(), cut.output_axis).cpu()
        for gradient, cut in zip(found, cuts, strict=True)
    ]


def _sum_by_channel(value: Tensor, axis: int) -> Tensor:
    return value.movedim(axis, 0).reshape(value.shape[axis], -1).sum(1)


class _Nodes:
    """A number for every channel, and the pairs of them that share a place."""

    def __init__(self, modules: dict[str, nn.Module]) -> None:
        self.modules, self._first, self._count = modules, dict[tuple[str, str], int](), 0
        self._pairs: list[np.ndarray] = []
        self._fixed: list[tuple[np.ndarray, str]] = []
        for name, module in modules.items():
            for side in SIDES:
                self._first[name, side] = self._count
                self._count += width(module, side)

    def join(self, one: tuple[str, str, np.ndarray], other: tuple[str, str, np.ndarray]) -> None:
        numbers = [self._first[name, side] + channels for name, side, channels in (one, other)]
        self._pairs.append(np.stack(numbers))

    def fix(self, name: str, side: str, channels: np.ndarray, why: str) -> None:
        self._fixed.append((self._first[name, side] + channels, why))

    def places(self) -> Places:
        pairs = np.concatenate([np.empty((2, 0), dtype=np.int64), *self._pairs], axis=1).astype(np.int64)
        graph = coo_array((np.ones(pairs.shape[1]), (pairs[0], pairs[1])), shape=(self._count, self._count))
        _, place = connected_components(graph, directed=False)
        found = Places({})
        for (name, side), first in self._first.items():
            found.of[name, side] = place[first : first + width(self.modules[name], side)]
        for numbers, why in self._fixed:
            found.fixed |= {int(each): why for each in np.unique(place[numbers])}
        return found


def _join_tied(network: nn.Module, nodes: _Nodes) -> None:
    """Let modules that share a weight share their places, and fix those that share one with another kind."""
    owners: dict[int, list[str]] = {}
    for name, module in network.named_modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                owners.setdefault(id(parameter), []).append(name)
    for names in owners.values():
        for name, other in zip(names[1:], names, strict=False):
            for side in SIDES:
                for one, another in ((name, other), (other, name)):
                    if one not in nodes.modules:
                        continue
                    every = np.arange(width(nodes.modules[one], side))
                    if another in nodes.modules and width(nodes.modules[another], side) == len(every):
                        nodes.join((one, side, every), (another, side, every))
                    else:
                        nodes.fix(one, side, every, f"{another!r} has the same weight")
