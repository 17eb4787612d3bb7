"""Random numbers as a function of integers: the same on every device, in every batch, in any order."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)  # as a signed number; the spacing of counters in splitmix64
_FACTORS = 0xBF58476D1CE4E5B9 - (1 << 64), 0x94D049BB133111EB - (1 << 64)
_BITS = 24  # of a uniform number: all that float32 holds


@torch.no_grad()
def uniforms_of(seeds: Tensor, count: int) -> Tensor:
    """Return `count` float32 numbers in [0, 1) for each of `seeds` (samples,), int64."""
    counters = torch.arange(1, count + 1, device=seeds.device) * _GOLDEN
    mixed = _mixed(_mixed(seeds)[:, None] + counters)
    return ((mixed >> 20) & ((1 << _BITS) - 1)).to(torch.float32) / (1 << _BITS)


@torch.no_grad()
def normals_of(seeds: Tensor, count: int) -> Tensor:
    """Return `count` standard normal float32 numbers for each of `seeds` (samples,), int64 (Box and Muller 1958)."""
    pairs = uniforms_of(seeds, 2 * count).view(len(seeds), 2, count)
    radius = torch.sqrt(-2 * torch.log1p(-pairs[:, 0]))
    return radius * torch.cos(2 * math.pi * pairs[:, 1])


@torch.no_grad()
def seeds_of(samples: Tensor) -> Tensor:
    """Return an int64 number (samples,) that depends on every bit of each sample of floats."""
    bits = samples.detach().to(torch.float32).contiguous().flatten(1).view(torch.int32).to(torch.int64)
    places = torch.arange(1, bits.shape[1] + 1, device=bits.device) * _GOLDEN
    return _mixed(bits + places).sum(1)


def _mixed(numbers: Tensor) -> Tensor:
    """Return splitmix64's output for each state; products wrap around."""
    numbers = (numbers ^ _shifted(numbers, 30)) * _FACTORS[0]
    numbers = (numbers ^ _shifted(numbers, 27)) * _FACTORS[1]
    return numbers ^ _shifted(numbers, 31)


def _shifted(numbers: Tensor, places: int) -> Tensor:
    """Return the numbers shifted to the right as if they had no sign."""
    return (numbers >> places) & ((1 << (64 - places)) - 1)
