"""Sensitivities of SiPP (arXiv 1910.05422) and PFP (arXiv 1911.07412): the largest share that a weight has in a sum.

For an entry j of a filter i and a patch a of the layer's input, both split by sign into non-negative parts, the share
is g_ij = w_ij a_j / sum_k w_ik a_k over the weights of the same sign. The sensitivity of a weight is the largest share
over samples of the mean (SiPP) or the maximum (its sampling variants, PFP) over patches.

With r_i = 1 / sum_k w_ik a_k, the mean of g_ij over patches is w_ij times an ordinary product of the matrices r and a;
the maximum is w_ij max(r_i a_j), a product in which max replaces the sum, most of which need not be computed
(`largest_products`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor, nn

from luigi_prune.compute.pruning.problem.layers import Layer
from luigi_prune.compute.pruning.problem.patches import is_plain, patches, visit_inputs
from luigi_prune.compute.pruning.problem.records import Problem, Scores
from luigi_prune.compute.pruning.scores.channel_order import order_channels
from luigi_prune.compute.pruning.scores.largest_means import (
    JOINED,
    raise_by_convolution,
    raise_by_products,
    raise_by_tensors,
)
from luigi_prune.compute.pruning.scores.largest_products import images, raise_largest, reciprocal_sums, windows
from luigi_prune.compute.pruning.scores.unfolded_shares import UnfoldedShares
from luigi_prune.compute.zeros import count_true, keep_only, nonzero

MEMORY = 32 * 2**20  # bytes of inputs, patches and intermediate results that are held at a time
SATURATED = 1 - 1e-6  # a share that cannot grow, except by rounding
MANY = 64  # patches of a sample from which on convolutions are faster than products of matrices


@dataclass(frozen=True, eq=False)
class _Half:
    """A layer's weights of one sign, and the largest products a_j r_i for them so far, (entries, filters).

    The weights exist while they are used: with those of all layers a network would take thrice its memory.
    `relative`: see `reciprocal_sums`. `scale`: factors of all r_i that make filters alike, so that few products can be
    larger than those so far; their inverses are factors of `weight`.
    """

    layer: Layer
    sign: int
    best: Tensor
    relative: bool
    scale: Tensor

    @cached_property
    def filters(self) -> Tensor:
        """The weights of this sign without it, 0 for the others: (filters, entries)."""
        return _of_sign(self.layer, self.sign)

    @cached_property
    def weight(self) -> Tensor:
        """The same weights over `scale`, (entries, filters)."""
        return (self.filters / self.scale[:, None]).T.contiguous()

    def release(self) -> None:
        """Free the weights until they are used again."""
        self.__dict__.pop("filters", None)
        self.__dict__.pop("weight", None)

    def shares(self) -> Tensor:
        """Return the largest shares, 0 for weights of the other sign: (filters, entries)."""
        shares = self.filters / self.scale[:, None]
        shares *= self.best.T
        keep_only(shares, nonzero(self.filters))
        return shares.clamp_max_(1)


def weight_mean(problem: Problem) -> Scores:
    """Return the sensitivity of every weight, shares averaged over patches."""
    return _sensitivities(problem, _raise_means)


def weight_max(problem: Problem) -> Scores:
    """Return the sensitivity of every weight, the largest share over patches, with the weight's sign."""
    sensitivities = _sensitivities(problem, _raise_every)
    return [s * layer.weight.detach().sign().float() for s, layer in zip(sensitivities, problem.layers, strict=True)]


def channel_max(problem: Problem) -> Scores:
    """Return per input channel the largest sensitivity of its weights, float64, ordered by `order_channels`."""
    grow = partial(_raise_maxima, needed=_largest_of_channel)
    sensitivities = _sensitivities(problem, grow, start=torch.zeros_like)
    largest = [s.transpose(0, 1).flatten(1).amax(1) for s in sensitivities]
    # What a share of 1 is rounded to must not decide.
    return order_channels(problem, [score.masked_fill(score >= SATURATED, 1) for score in largest])


def _sensitivities(
    problem: Problem, grow: Callable[[list[_Half], Tensor], None], start: Callable[[Tensor], Tensor] | None = None
) -> list[Tensor]:
    """Return the largest share of each weight.

    `start(weights of one sign)`: the initial largest products, both (entries, filters), by default
    `_infinite_elsewhere`; `grow(halves, inputs)` raises them.
    """
    start = start or _infinite_elsewhere
    mean, relative = grow is _raise_means, problem.rules.scales_epsilon
    seen = [
        [_half(layer, sign, start, mean=mean, relative=relative) for sign in (1, -1)]
        if is_plain(layer)
        else UnfoldedShares(layer, mean=mean, relative=relative)
        for layer in problem.layers
    ]

    def visit(index: int, value: Tensor, sample: int) -> None:
        signs = [value.clamp_min(0), (-value).clamp_min(0)] if value.numel() and float(value.amin()) < 0 else [value]
        of_layer = seen[index]
        for inputs in signs:
            if isinstance(of_layer, UnfoldedShares):
                of_layer.see(inputs)
            else:
                grow(of_layer, inputs)
        if not isinstance(of_layer, UnfoldedShares):
            for half in of_layer:
                half.release()

    visit_inputs(problem, visit)
    sensitivities = []
    for layer in problem.layers:
        of_layer = seen.pop(0)
        if isinstance(of_layer, UnfoldedShares):
            sensitivities.append(of_layer.shares())
        else:
            one, other = of_layer
            sensitivities.append(one.shares().add_(other.shares()).view(layer.weight.shape))
    return sensitivities


def _of_sign(layer: Layer, sign: int) -> Tensor:
    weight = layer.weight.detach().float().flatten(1)
    return (weight.clamp_min(0) if sign > 0 else (-weight).clamp_min_(0)).contiguous()


def _half(layer: Layer, sign: int, start: Callable[[Tensor], Tensor], *, mean: bool, relative: bool) -> _Half:
    """Return the weights of one sign and their initial products, contiguous in the order in which they are computed."""
    weight = _of_sign(layer, sign)
    if mean and not isinstance(layer.module, nn.Linear):
        return _Half(layer, sign, start(weight.T), relative, weight.new_ones(len(weight)))
    scale = weight.sum(1)  # sums are nearly in proportion
    scale = torch.where(scale > 0, scale / scale.amax(), 1)
    return _Half(layer, sign, start(weight.T.contiguous()), relative, scale)


def _infinite_elsewhere(weight: Tensor) -> Tensor:
    """Return 0 for weights of this sign and infinity, which no product exceeds, for the others, in their layout."""
    best = torch.full_like(weight, torch.inf)
    keep_only(best, ~nonzero(weight))
    return best


def _raise_every(halves: list[_Half], value: Tensor) -> None:
    """Raise the largest products of every weight; those whose share cannot grow any further become infinite."""
    _raise_maxima(halves, value, _lowest_of_filters)
    for half in halves:
        saturated = half.weight * half.best >= SATURATED
        if saturated.device.type != "cpu" or count_true(saturated):  # no wait for a device
            half.best.masked_fill_(saturated, torch.inf)


def _lowest_of_filters(half: _Half) -> Tensor:
    """Return per entry the threshold that a product must exceed to raise the share of any filter's weight."""
    return half.best.amin(1)


def _largest_of_channel(half: _Half) -> Tensor:
    """Return per entry the threshold that a product must exceed to raise the largest share of its channel."""
    shares = (half.best * half.weight).amax(1).view(half.layer.weight.shape[1], -1)
    largest = shares.amax(1, keepdim=True).expand_as(shares).flatten()
    steepest = half.weight.amax(1)
    return (largest / steepest).masked_fill_((largest >= SATURATED) | (steepest <= 0), torch.inf)


def _raise_maxima(halves: list[_Half], value: Tensor, needed: Callable[[_Half], Tensor]) -> None:
    """Raise the largest products by those samples and patches whose bound exceeds `needed`."""
    layer = halves[0].layer
    image = images(layer, value)
    window = windows(layer, image)
    for part in image.split(_samples(image[0].numel(), window.count * len(layer.weight))):
        # the layout in which convolutions are fast and the sums of a patch are contiguous
        ordered = part.contiguous(memory_format=torch.channels_last) if window.count >= MANY else part
        for half in halves:
            r = reciprocal_sums(layer, ordered, half.filters, relative=half.relative)
            r = r.permute(0, 2, 3, 1).contiguous().mul_(half.scale)
            raise_largest(half.best, part, r, window, partial(needed, half), MEMORY)


def _raise_means(halves: list[_Half], value: Tensor) -> None:
    """Raise the largest products to the sample means over patches."""
    layer, best = halves[0].layer, [half.best.T for half in halves]
    if value.dim() == 3:  # a linear layer: one patch per sample
        _raise_every(halves, value)
        return
    count = windows(layer, images(layer, value[:1])).count
    for some in value.split(_samples(count * best[0].shape[1], count * len(layer.weight))):
        image = images(layer, some)
        factors = [reciprocal_sums(layer, image, half.filters, relative=half.relative).div_(count) for half in halves]
        many = MANY if len(layer.weight) <= JOINED else 2 * MANY
        if count >= many and value.device.type == "cpu":
            assert isinstance(layer.module, nn.Conv2d)
            raise_by_convolution(best, layer.module, image, factors)
            continue
        entries = torch.cat(list(patches(layer, some, MEMORY)))
        raise_means = raise_by_products if value.device.type == "cpu" else raise_by_tensors
        raise_means(best, entries, [r.flatten(2) for r in factors])


def _samples(*numbers: int) -> int:
    """Return how many samples to process at a time if each needs up to `numbers` floats."""
    return max(1, MEMORY // (4 * max(numbers)))
