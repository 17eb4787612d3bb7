"""Multiscale flows for images: FFJORD's (Grathwohl et al. 2019, arXiv 1810.01367)."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from luigi_prune.compute.networks.densities import Flow, FlowBlock
from luigi_prune.compute.networks.ode import Solver, torchdiffeq
from luigi_prune.errors import ConfigError

SMALLEST = 4  # pixels of the last scale
_ALPHA = 1e-6  # keeps logits of pixels at 0 and 1 finite
_SOLVER = Solver(atol=1e-5, rtol=1e-5)


class ConvolutionalField(nn.Module):
    """3x3 convolutions with softplus between them, each of which has the time as one more input channel."""

    def __init__(self, channels: int, hidden: int = 64, layers: int = 4):
        super().__init__()
        sizes = [channels, *[hidden] * (layers - 1), channels]
        self.layers = nn.ModuleList(nn.Conv2d(a + 1, b, 3, padding=1) for a, b in itertools.pairwise(sizes))

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        """Return the derivative of the state z (samples, channels, height, width) at time t."""
        time = t.to(z).reshape(1, 1, 1, 1).expand(len(z), 1, *z.shape[2:])
        for index, layer in enumerate(self.layers):
            z = layer(torch.cat([time, functional.softplus(z) if index else z], dim=1))
        return z


class ImageFlow(Flow):
    """A flow on the logits of pixels in [0, 1]; at every scale but the last half of the channels are finished."""

    def __init__(self, shape: tuple[int, int, int]):
        channels, height, width = shape
        blocks: list[FlowBlock] = []
        scales = 0
        while True:
            blocks += [_block(channels), _block(channels)]
            scales += 1
            if min(height, width) // 2 < SMALLEST:
                break
            height, width, channels = height // 2, width // 2, channels * 4
            blocks += [_block(channels), _block(channels)]
            channels //= 2
        super().__init__(blocks)
        self.shape, self.scales = shape, scales

    def forward(self, x: Tensor) -> Tensor:
        """Return (samples, 1 + features): a and the latents of all scales, for images x (samples, *shape)."""
        if self.training and bool(((x < 0) | (x > 1)).any()):
            raise ConfigError(
                "transforms: this network reads pixels from 0 to 1, got others; leave Normalize out of the transforms"
            )
        a, z = _logits(x)
        finished, blocks = [], iter(enumerate(self.blocks))
        for scale in range(self.scales):
            a, z = self._through(blocks, x, a, z)
            if scale < self.scales - 1:
                a, z = self._through(blocks, x, a, functional.pixel_unshuffle(z, 2))
                done, z = z.chunk(2, dim=1)
                finished.append(done)
        return torch.cat([a, *(part.flatten(1) for part in (*finished, z))], dim=1)

    def _through(self, blocks: Any, x: Tensor, a: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return a and z after the next two blocks."""
        state = torch.cat([a, z.flatten(1)], dim=1)
        for _ in range(2):
            index, block = next(blocks)
            state = block(state, z.shape[1:], self.seeds(x, index))
        return state[:, :1], state[:, 1:].unflatten(1, z.shape[1:])


def _logits(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return minus the logarithm of the derivative (samples, 1), and the logits; others count as the nearest pixel."""
    x = torch.where(x < 0, torch.zeros_like(x), torch.where(x > 1, torch.ones_like(x), x))
    inner = _ALPHA + (1 - 2 * _ALPHA) * x
    # 1 - inner would lose all digits near 1.
    low, high = torch.log(inner), torch.log(_ALPHA + (1 - 2 * _ALPHA) * (1 - x))
    change = math.log(1 - 2 * _ALPHA) - low - high
    return -change.flatten(1).sum(1, keepdim=True), low - high


def _block(channels: int) -> FlowBlock:
    return FlowBlock(ConvolutionalField(channels), _SOLVER, trainable_time=True)


def image_flow(input_shape: Any, output_size: int, name: str) -> ImageFlow:
    """Return the flow for images of this shape; the number of outputs is theirs, whatever `output_size` is."""
    torchdiffeq()
    if len(input_shape) != 3:
        raise ConfigError(f"network.name: {name} takes images, got inputs of shape {tuple(input_shape)}")
    _, height, width = input_shape
    size, step = min(height, width), 1
    while size // 2 >= SMALLEST:
        size, step = size // 2, 2 * step
    if size < SMALLEST or height % step or width % step:
        raise ConfigError(
            f"network.name: {name} halves images down to at least {SMALLEST} pixels, which is not possible for "
            f"{height}x{width}; resize or pad them in the transforms, to 32x32 for instance"
        )
    return ImageFlow(tuple(input_shape))
