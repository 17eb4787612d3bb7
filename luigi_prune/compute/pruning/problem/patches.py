"""Layer inputs as patches: the inputs that a filter multiplies with its weights, sample by sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from luigi_prune.compute.network_inputs import call, sample_count, split
from luigi_prune.compute.pruning.problem.batches import merge_batches
from luigi_prune.compute.pruning.problem.layers import Layer, evaluating
from luigi_prune.compute.pruning.problem.records import Batches, Problem

FORWARD_BATCH = 32  # samples that run through the network together


def visit_inputs(problem: Problem, visit: Callable[[int, Tensor, int], None]) -> None:
    """Run the calibration data through the network; call `visit(layer index, input, first sample's number)`.

    Inputs are float32, of shape (samples, channels, height, width) or (samples, positions, features), one call per
    layer call and batch. Batches are merged and split again, so that the result does not depend on their size.
    """
    start = 0

    def note(index: int, module: nn.Module) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            value = inputs[0].detach().float()
            if isinstance(module, nn.Linear):
                value = value.reshape(len(value), -1, value.shape[-1]) if value.dim() > 1 else value.view(1, 1, -1)
            elif value.dim() == 3:
                value = value[None]
            visit(index, value, start)

        return hook

    with ExitStack() as stack, torch.no_grad(), evaluating(problem.network):
        for index, layer in enumerate(problem.layers):
            stack.callback(layer.module.register_forward_pre_hook(note(index, layer.module)).remove)
        for inputs, _ in _rebatched(problem.batches):
            call(problem.network, inputs)
            start += sample_count(inputs)


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
    """Return the number of output positions of a convolution for one sample; 1 for a linear layer."""
    if isinstance(layer.module, nn.Linear):
        return 1
    return max(1, outputs.get(layer.name, 0) // layer.weight.shape[0])
