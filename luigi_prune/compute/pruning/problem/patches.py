"""Layer inputs as patches: the inputs that a filter multiplies with its weights, sample by sample."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from luigi_prune.compute.network_inputs import call_on_copy, sample_count, split
from luigi_prune.compute.pruning.problem.batches import merge_batches
from luigi_prune.compute.pruning.problem.call_hooks import after_calls, before_calls
from luigi_prune.compute.pruning.problem.equivalents import has_own_forward
from luigi_prune.compute.pruning.problem.layers import Layer, evaluating
from luigi_prune.compute.pruning.problem.records import Batches, Problem
from luigi_prune.compute.pruning.problem.relaid_weights import UpConvolution

FORWARD_BATCH = 32  # samples that run through the network together


def visit_inputs(problem: Problem, visit: Callable[[int, Tensor, int], None]) -> None:
    """Run the calibration data through the network; call `visit(layer index, input, first sample's number)`.

    Inputs are float32, of shape (samples, channels, one or more axes) for convolutions, else (samples, positions,
    features), one call per layer call and batch. A bilinear layer's features are the products of its two inputs'.
    Batches are merged and split again, so that the result does not depend on their size.
    """
    start = 0

    def note(index: int, module: nn.Module) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: tuple[Any, ...], *output: Tensor) -> None:
            visit(index, _input_of(module, inputs, *output), start)

        return hook

    with ExitStack() as stack, torch.no_grad(), evaluating(problem.network):
        for index, layer in enumerate(problem.layers):
            module = layer.module
            pads = isinstance(module, nn.Conv2d) and has_own_forward(module)
            register = after_calls if pads else before_calls
            stack.callback(register(module, note(index, module)).remove)
        for inputs, _ in _rebatched(problem.batches):
            call_on_copy(problem.network, inputs)
            start += sample_count(inputs)


def _input_of(module: nn.Module, inputs: tuple[Any, ...], output: Tensor | None = None) -> Tensor:
    """Return the input of one call as `visit_inputs` passes it on.

    `output`: given for a convolution with a forward of its own. If it has more positions than the module's padding
    accounts for, the module pads its input itself, as "SAME" convolutions do: evenly, an odd remainder at the end.
    """
    value = inputs[0].detach().float()
    if isinstance(module, nn.Bilinear):
        value = (value.unsqueeze(-1) * inputs[1].detach().float().unsqueeze(-2)).flatten(-2)
    axes = len(getattr(module, "kernel_size", ()))
    if not axes:
        return value.reshape(len(value), -1, value.shape[-1]) if value.dim() > 1 else value.view(1, 1, -1)
    value = value if value.dim() == axes + 2 else value[None]
    if output is None or not isinstance(module, nn.Conv2d):
        return value
    pads: list[int] = []
    given = module._reversed_padding_repeated_twice  # last axis first
    for axis in (1, 0):
        reach = (output.shape[axis - 2] - 1) * module.stride[axis] + module.dilation[axis] * (
            module.kernel_size[axis] - 1
        )
        missing = max(0, reach + 1 - value.shape[axis - 2] - sum(given[2 - 2 * axis : 4 - 2 * axis]))
        pads += [missing // 2, missing - missing // 2]
    return F.pad(value, pads) if any(pads) else value


def _rebatched(batches: Batches) -> Batches:
    return [
        pair
        for x, y in merge_batches(batches)
        for pair in zip(split(x, FORWARD_BATCH), split(y, FORWARD_BATCH), strict=True)
    ]


def padded(layer: Layer, value: Tensor) -> Tensor:
    """Return a convolution's padded input."""
    module = layer.module
    assert isinstance(module, nn.Conv2d)
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    return F.pad(value, module._reversed_padding_repeated_twice, mode=mode)


def patches(layer: Layer, value: Tensor, budget: int) -> Iterator[Tensor]:
    """Yield the input as (samples, entries of a filter, patches) in pieces of at most `budget` bytes or one sample.

    A linear layer sees every position of a sequence as a separate sample with one patch.
    """
    module = layer.module
    if not isinstance(module, nn.Conv2d):
        yield from value.reshape(-1, value.shape[-1], 1).split(max(1, budget // (4 * value.shape[-1])))
        return
    entries = module.weight[0].numel()
    image = padded(layer, value)
    area = [(n - d * (k - 1) - 1) // s + 1 for n, d, k, s in _patch_axes(module, image)]
    for part in image.split(max(1, budget // (4 * entries * area[0] * area[1]))):
        if module.kernel_size == (1, 1) and module.stride == (1, 1):
            yield part.flatten(2)
        else:
            yield F.unfold(part, module.kernel_size, module.dilation, 0, module.stride)


def _patch_axes(module: nn.Conv2d, image: Tensor) -> list[tuple[int, int, int, int]]:
    return list(zip(image.shape[-2:], module.dilation, module.kernel_size, module.stride, strict=True))


def patch_count(layer: Layer, outputs: dict[str, int]) -> int:
    """Return the number of output positions of a convolution for one sample; 1 for other layers."""
    if not hasattr(layer.module, "kernel_size"):
        return 1
    return max(1, outputs.get(layer.name, 0) // (layer.weight.shape[0] * layer.groups))


def is_plain(layer: Layer) -> bool:
    """Return whether the layer is a `Linear` or an ungrouped `Conv2d`: there are faster ways than `unfold`."""
    module = layer.module
    return isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)


def unfold(layer: Layer, value: Tensor) -> Tensor:
    """Return an input of any layer as (samples, groups, entries of a filter, patches): what each filter multiplies.

    `value`: as `visit_inputs` passes it on. A position of a layer that is no convolution is a sample with one patch.
    """
    module: Any = layer.module
    if not hasattr(module, "kernel_size"):
        return value.reshape(-1, 1, value.shape[-1], 1)
    axes, strides = len(module.kernel_size), module.stride
    if isinstance(module, UpConvolution):
        value, strides = _spread_out(module, value), (1,) * axes
    elif hasattr(module, "padding_mode"):
        mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
        value = F.pad(value, module._reversed_padding_repeated_twice, mode=mode)
    for axis, (k, d, s) in enumerate(zip(module.kernel_size, module.dilation, strides, strict=True)):
        value = value.unfold(2 + axis, d * (k - 1) + 1, s)[..., ::d]
    if isinstance(module, UpConvolution):  # its kernel runs the other way
        value = value.flip(*range(-axes, 0))
    samples, channels = value.shape[:2]
    kernel, positions = math.prod(value.shape[2 + axes :]), math.prod(value.shape[2 : 2 + axes])
    entries = value.reshape(samples, channels, positions, kernel).transpose(2, 3)
    return entries.reshape(samples, module.groups, channels // module.groups * kernel, positions)


def _spread_out(module: UpConvolution, value: Tensor) -> Tensor:
    """Return the input on which an ordinary convolution with stride 1 and the reversed kernel computes the outputs."""
    original: Any = module._shell[0]
    sizes = [(size - 1) * step + 1 for size, step in zip(value.shape[2:], module.stride, strict=True)]
    spread = value.new_zeros(*value.shape[:2], *sizes)
    steps: list[Any] = [..., *(slice(None, None, step) for step in module.stride)]
    spread[tuple(steps)] = value
    pads: list[int] = []
    for axis in reversed(range(len(sizes))):
        border = module.dilation[axis] * (module.kernel_size[axis] - 1) - int(module.padding[axis])
        pads += [border, border + int(original.output_padding[axis])]
    return F.pad(spread, pads)
