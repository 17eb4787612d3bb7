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
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

from luigi_prune.compute.pruning.drawing import IN_CACHE
from luigi_prune.compute.pruning.layers import Layer
from luigi_prune.compute.pruning.patches import patches, visit_inputs
from luigi_prune.compute.pruning.protocol import Problem, Scores
from luigi_prune.compute.pruning.scores.largest import images, raise_largest, reciprocal_sums, windows
from luigi_prune.compute.zeros import count_true, keep_only, nonzero

MEMORY = 32 * 2**20  # bytes of inputs, of patches, and of what is computed from them, that are held at a time
WHOLE = 1 - 1e-6  # a share that cannot grow, but for rounding
MANY = 64  # patches of a sample from which on convolutions are faster than products of matrices
FEW = 8  # patches from which on a product takes longer than writing it down


@dataclass(frozen=True, eq=False)
class _Half:
    """A layer's weights of one sign, and the largest products a_j r_i for them so far, both (entries, filters)."""

    layer: Layer
    weight: Tensor
    best: Tensor

    @property
    def filters(self) -> Tensor:
        return self.weight.T

    def shares(self) -> Tensor:
        """Return the largest shares, 0 for weights of the other sign."""
        found = self.weight * self.best
        keep_only(found, nonzero(self.weight))
        return found.clamp_max_(1)


def weight_mean(problem: Problem) -> Scores:
    """Return the sensitivity of every weight, shares averaged over patches."""
    return _sensitivities(problem, _raise_means, _averaged)


def weight_max(problem: Problem) -> Scores:
    """Return the sensitivity of every weight, the largest share over patches, with the weight's sign."""
    found = _sensitivities(problem, _raise_every, _wanted)
    return [s * layer.weight.detach().sign().float() for s, layer in zip(found, problem.layers, strict=True)]


def channel_max(problem: Problem) -> Scores:
    """Return per input channel the largest sensitivity of a weight that reads it."""
    grow = partial(_raise_maxima, needed=_largest_of_channel)
    found = _sensitivities(problem, grow, lambda layer, weight: torch.zeros_like(weight))
    return [s.transpose(0, 1).flatten(1).amax(1) for s in found]


def _sensitivities(
    problem: Problem, grow: Callable[[list[_Half], Tensor], None], start: Callable[[Layer, Tensor], Tensor]
) -> list[Tensor]:
    """Return the largest share of each weight.

    `start(layer, weight of one sign)` is what is known at first, `grow(halves, inputs)` raises what is known.
    """
    halves = [_halves(layer, start) for layer in problem.layers]

    def visit(index: int, value: Tensor, sample: int) -> None:
        signs = [value.clamp_min(0), (-value).clamp_min(0)] if value.numel() and float(value.amin()) < 0 else [value]
        for inputs in signs:
            grow(halves[index], inputs)

    visit_inputs(problem, visit)
    return [
        (one.shares() + other.shares()).T.reshape(layer.weight.shape)
        for (one, other), layer in zip(halves, problem.layers, strict=True)
    ]


def _halves(layer: Layer, start: Callable[[Layer, Tensor], Tensor]) -> list[_Half]:
    weight = layer.weight.detach().float().flatten(1).T
    signs = (weight.clamp_min(0).contiguous(), (-weight).clamp_min(0).contiguous())
    return [_Half(layer, sign, start(layer, sign)) for sign in signs]


def _wanted(layer: Layer, weight: Tensor) -> Tensor:
    """Return 0 for weights and infinity, which nothing exceeds, for those of the other sign."""
    found = torch.full_like(weight, torch.inf)
    keep_only(found, ~nonzero(weight))
    return found


def _averaged(layer: Layer, weight: Tensor) -> Tensor:
    """Return zeros with the entries of a filter side by side, for means; a linear layer has none to take."""
    if isinstance(layer.module, nn.Linear):
        return _wanted(layer, weight)
    return weight.new_zeros(weight.shape[::-1]).T


def _raise_every(halves: list[_Half], value: Tensor) -> None:
    """Raise the largest products of every weight; those whose share cannot grow any more become infinite."""
    _raise_maxima(halves, value, _lowest_of_filters)
    for half in halves:
        whole = half.weight * half.best >= WHOLE
        if count_true(whole):
            half.best.masked_fill_(whole, torch.inf)


def _lowest_of_filters(half: _Half) -> Tensor:
    """Return per entry what a product must exceed to raise the share of any filter's weight."""
    return half.best.amin(1)


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
        # the order in which convolutions are fast, and in which the sums of a patch lie side by side
        ordered = part.contiguous(memory_format=torch.channels_last) if window.count >= MANY else part
        for half in halves:
            r = reciprocal_sums(layer, ordered, half.filters).permute(0, 2, 3, 1).contiguous()
            raise_largest(half.best, part, r, window, partial(needed, half), MEMORY)


def _raise_means(halves: list[_Half], value: Tensor) -> None:
    """Raise the largest products to those of a sample, averaged over its patches."""
    layer = halves[0].layer
    if value.dim() == 3:  # a linear layer: one patch per sample, no mean to take
        _raise_every(halves, value)
        return
    count = windows(layer, images(layer, value[:1])).count
    for some in value.split(_samples(count * halves[0].best.shape[0], count * len(layer.weight))):
        image = images(layer, some)
        entries = None if count >= MANY else torch.cat(list(patches(layer, some, MEMORY))).mT.contiguous()
        for half in halves:
            r = reciprocal_sums(layer, image, half.filters).div_(count)
            if entries is None:
                _raise_by_convolution(half, image, r)
            else:
                _raise_by_products(half, entries, r.flatten(2))


def _raise_by_convolution(half: _Half, image: Tensor, r: Tensor) -> None:
    """Raise to the products of `r` and the inputs, summed over patches: what the gradient of a weight is made of."""
    module, best = half.layer.module, half.best.T
    assert isinstance(module, nn.Conv2d)
    for one, of_filter in zip(image.split(1), r.split(1), strict=True):
        mean = conv2d_weight(one, module.weight.shape, of_filter, module.stride, 0, module.dilation)
        torch.maximum(best, mean.view(best.shape), out=best)


def _raise_by_products(half: _Half, entries: Tensor, r: Tensor) -> None:
    """Raise to the same products; `entries` (samples, patches, entries), `r` (samples, filters, patches)."""
    best = half.best.T
    means = torch.empty_like(best)
    # Few patches are multiplied faster than their product is written down: it has to stay in a core's cache.
    together = len(best) if r.shape[2] >= FEW else max(1, IN_CACHE // best.shape[1])
    for some, mean, of_filters in zip(best.split(together), means.split(together), r.split(together, 1), strict=True):
        for one, of_patch in zip(entries, of_filters, strict=True):
            torch.maximum(some, torch.mm(of_patch, one, out=mean), out=some)


def _samples(*numbers: int) -> int:
    """Return how many samples to take at a time, where each holds so many numbers at once."""
    return max(1, MEMORY // (4 * max(numbers)))
