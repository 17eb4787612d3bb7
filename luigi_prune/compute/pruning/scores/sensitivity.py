"""Sensitivities of SiPP (arXiv 1910.05422) and PFP (arXiv 1911.07412): the largest share that a weight has in a sum.

For a filter i, an entry j of it and a patch a of the layer's input, split by sign into halves that are not negative,
the share is g_ij = w_ij a_j / sum_k w_ik a_k over the weights of the same sign. The sensitivity of a weight is the
largest share over samples of the mean (SiPP) or the maximum (its sampling variants, PFP) over patches.

With r_i = 1 / sum_k w_ik a_k, the mean of g_ij over patches is w_ij times an ordinary product of the matrices r and a;
the maximum is w_ij max(r_i a_j), a product where max replaces the sum, most of which need not be computed (`largest`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from luigi_prune.compute.pruning.layers import Layer
from luigi_prune.compute.pruning.patches import patches, visit_inputs
from luigi_prune.compute.pruning.protocol import Problem, Scores
from luigi_prune.compute.pruning.scores.largest import images, raise_largest, reciprocal_sums, windows

MEMORY = 32 * 2**20  # bytes of inputs, of patches, and of what is computed from them, that are held at a time
WHOLE = 1 - 1e-6  # a share that cannot grow, but for rounding


@dataclass(frozen=True, eq=False)
class _Half:
    """A layer's weights of one sign, and the largest products a_j r_i for them so far, both (entries, filters)."""

    layer: Layer
    weight: Tensor
    best: Tensor
    enough: Tensor  # what makes a share whole; -inf where the weight has the other sign

    @property
    def filters(self) -> Tensor:
        return self.weight.T


def weight_mean(problem: Problem) -> Scores:
    """Return the sensitivity of every weight, shares averaged over patches."""
    return _sensitivities(problem, _raise_means)


def weight_max(problem: Problem) -> Scores:
    """Return the sensitivity of every weight, the largest share over patches, with the weight's sign."""
    found = _sensitivities(problem, partial(_raise_maxima, needed=_lowest_of_filters))
    return [s * layer.weight.detach().sign().float() for s, layer in zip(found, problem.layers, strict=True)]


def channel_max(problem: Problem) -> Scores:
    """Return per input channel the largest sensitivity of a weight that reads it."""
    found = _sensitivities(problem, partial(_raise_maxima, needed=_largest_of_channel))
    return [s.transpose(0, 1).flatten(1).amax(1) for s in found]


def _sensitivities(problem: Problem, grow: Callable[[list[_Half], Tensor], None]) -> list[Tensor]:
    """Return the largest share of each weight; `grow(halves, inputs)` raises what is known of a layer."""
    halves = [_halves(layer) for layer in problem.layers]

    def visit(index: int, value: Tensor, start: int) -> None:
        signs = [value.clamp_min(0), (-value).clamp_min(0)] if bool((value < 0).any()) else [value]
        for inputs in signs:
            grow(halves[index], inputs)

    visit_inputs(problem, visit)
    shares = [sum((half.weight * half.best for half in pair), torch.zeros(())) for pair in halves]
    return [
        share.clamp_max(1.0).T.reshape(layer.weight.shape) for share, layer in zip(shares, problem.layers, strict=True)
    ]


def _halves(layer: Layer) -> list[_Half]:
    weight = layer.weight.detach().float().flatten(1).T
    found = []
    for w in (weight.clamp_min(0).contiguous(), (-weight).clamp_min(0).contiguous()):
        found.append(_Half(layer, w, torch.zeros_like(w), torch.where(w > 0, WHOLE / w, -torch.inf)))
    return found


def _lowest_of_filters(half: _Half) -> Tensor:
    """Return per entry what a product must exceed to raise the share of any filter's weight."""
    return torch.where(half.best < half.enough, half.best, torch.inf).amin(1)


def _largest_of_channel(half: _Half) -> Tensor:
    """Return per entry what a product must exceed to raise the largest share of its channel."""
    shares = (half.best * half.weight).amax(1).view(half.layer.weight.shape[1], -1)
    largest = shares.amax(1, keepdim=True).expand_as(shares).flatten()
    steepest = half.weight.amax(1)
    return (largest / steepest).masked_fill_((largest >= WHOLE) | (steepest <= 0), torch.inf)


def _raise_maxima(halves: list[_Half], value: Tensor, needed: Callable[[_Half], Tensor]) -> None:
    """Raise the largest products by those of all samples and patches that matter."""
    layer = halves[0].layer
    image = images(layer, value)
    window = windows(layer, image)
    for part in image.split(_samples(image[0].numel(), window.count * len(layer.weight))):
        for half in halves:
            r = reciprocal_sums(layer, part, half.filters)
            raise_largest(half.best, part, r, window, partial(needed, half), MEMORY)


def _raise_means(halves: list[_Half], value: Tensor) -> None:
    """Raise the largest products to those of a sample, averaged over its patches."""
    layer = halves[0].layer
    if value.dim() == 3:  # a linear layer: one patch per sample, no mean to take
        _raise_maxima(halves, value, _lowest_of_filters)
        return
    count = windows(layer, images(layer, value)).count
    means = torch.empty_like(halves[0].best)
    for some in value.split(_samples(count * halves[0].best.shape[0], count * len(layer.weight))):
        image, entries = images(layer, some), torch.cat(list(patches(layer, some, MEMORY)))
        for half in halves:
            r = reciprocal_sums(layer, image, half.filters).flatten(1, 2).div_(count)
            for a, of_patch in zip(entries, r, strict=True):  # a product of batches is far slower where patches are few
                torch.maximum(half.best, torch.mm(a, of_patch, out=means), out=half.best)


def _samples(*numbers: int) -> int:
    """Return how many samples to take at a time, where each holds so many numbers at once."""
    return max(1, MEMORY // (4 * max(numbers)))
