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
from torch.nn.grad import conv2d_weight

from luigi_prune.compute.pruning.problem.layers import Layer
from luigi_prune.compute.pruning.problem.patches import is_plain, patches, visit_inputs
from luigi_prune.compute.pruning.problem.records import Problem, Scores
from luigi_prune.compute.pruning.scores.channel_order import order_channels
from luigi_prune.compute.pruning.scores.largest_products import images, raise_largest, reciprocal_sums, windows
from luigi_prune.compute.pruning.scores.unfolded_shares import UnfoldedShares
from luigi_prune.compute.pruning.selection.drawing import IN_CACHE
from luigi_prune.compute.zeros import count_true, keep_only, nonzero

MEMORY = 32 * 2**20  # bytes of inputs, patches and intermediate results that are held at a time
SATURATED = 1 - 1e-6  # a share that cannot grow, except by rounding
MANY = 64  # patches of a sample from which on convolutions are faster than products of matrices
FEW = 8  # patches from which on a product takes longer to compute than to write to memory


@dataclass(frozen=True, eq=False)
class _Half:
    """A layer's weights of one sign, and the largest products a_j r_i for them so far, both (entries, filters).

    The weights exist while they are used: with those of all layers a network would take thrice its memory.
    `relative`: see `reciprocal_sums`.
    """

    layer: Layer
    sign: int
    best: Tensor
    relative: bool

    @cached_property
    def weight(self) -> Tensor:
        """The weights of this sign without it, 0 for the others."""
        return _of_sign(self.layer, self.sign)

    @property
    def filters(self) -> Tensor:
        return self.weight.T

    def release(self) -> None:
        """Free the weights until they are used again."""
        self.__dict__.pop("weight", None)

    def shares(self) -> Tensor:
        """Return the largest shares, 0 for weights of the other sign."""
        shares = self.weight * self.best
        keep_only(shares, nonzero(self.weight))
        return shares.clamp_max_(1)


def weight_mean(problem: Problem) -> Scores:
    """Return the sensitivity of every weight, shares averaged over patches."""
    return _sensitivities(problem, _raise_means, _zeros_for_means)


def weight_max(problem: Problem) -> Scores:
    """Return the sensitivity of every weight, the largest share over patches, with the weight's sign."""
    sensitivities = _sensitivities(problem, _raise_every, _infinite_elsewhere)
    return [s * layer.weight.detach().sign().float() for s, layer in zip(sensitivities, problem.layers, strict=True)]


def channel_max(problem: Problem) -> Scores:
    """Return per input channel the largest sensitivity of its weights, float64, ordered by `order_channels`."""
    grow = partial(_raise_maxima, needed=_largest_of_channel)
    sensitivities = _sensitivities(problem, grow, lambda layer, weight: torch.zeros_like(weight))
    largest = [s.transpose(0, 1).flatten(1).amax(1) for s in sensitivities]
    # What a share of 1 is rounded to must not decide.
    return order_channels(problem, [score.masked_fill(score >= SATURATED, 1) for score in largest])


def _sensitivities(
    problem: Problem, grow: Callable[[list[_Half], Tensor], None], start: Callable[[Layer, Tensor], Tensor]
) -> list[Tensor]:
    """Return the largest share of each weight.

    `start(layer, weight of one sign)`: the initial largest products; `grow(halves, inputs)` raises them.
    """
    mean, relative = grow is _raise_means, problem.rules.scales_epsilon
    seen = [
        _halves(layer, start, relative) if is_plain(layer) else UnfoldedShares(layer, mean=mean, relative=relative)
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
            sensitivities.append((one.shares() + other.shares()).T.reshape(layer.weight.shape))
    return sensitivities


def _of_sign(layer: Layer, sign: int) -> Tensor:
    weight = layer.weight.detach().float().flatten(1).T
    return (weight if sign > 0 else -weight).clamp_min(0).contiguous()


def _halves(layer: Layer, start: Callable[[Layer, Tensor], Tensor], relative: bool) -> list[_Half]:
    return [_Half(layer, sign, start(layer, _of_sign(layer, sign)), relative) for sign in (1, -1)]


def _infinite_elsewhere(layer: Layer, weight: Tensor) -> Tensor:
    """Return 0 for weights of this sign and infinity, which no product exceeds, for the others."""
    best = torch.full_like(weight, torch.inf)
    keep_only(best, ~nonzero(weight))
    return best


def _zeros_for_means(layer: Layer, weight: Tensor) -> Tensor:
    """Return zeros with the entries of a filter contiguous, for means over patches; a linear layer has one patch."""
    if isinstance(layer.module, nn.Linear):
        return _infinite_elsewhere(layer, weight)
    return weight.new_zeros(weight.shape[::-1]).T


def _raise_every(halves: list[_Half], value: Tensor) -> None:
    """Raise the largest products of every weight; those whose share cannot grow any further become infinite."""
    _raise_maxima(halves, value, _lowest_of_filters)
    for half in halves:
        saturated = half.weight * half.best >= SATURATED
        if count_true(saturated):
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
            r = r.permute(0, 2, 3, 1).contiguous()
            raise_largest(half.best, part, r, window, partial(needed, half), MEMORY)


def _raise_means(halves: list[_Half], value: Tensor) -> None:
    """Raise the largest products to the sample means over patches."""
    layer = halves[0].layer
    if value.dim() == 3:  # a linear layer: one patch per sample
        _raise_every(halves, value)
        return
    count = windows(layer, images(layer, value[:1])).count
    for some in value.split(_samples(count * halves[0].best.shape[0], count * len(layer.weight))):
        image = images(layer, some)
        entries = None if count >= MANY else torch.cat(list(patches(layer, some, MEMORY))).mT.contiguous()
        for half in halves:
            r = reciprocal_sums(layer, image, half.filters, relative=half.relative).div_(count)
            if entries is None:
                _raise_by_convolution(half, image, r)
            else:
                _raise_by_products(half, entries, r.flatten(2))


def _raise_by_convolution(half: _Half, image: Tensor, r: Tensor) -> None:
    """Raise to the products of `r` and the inputs, summed over patches, like the gradient of a convolution's weight."""
    module, best = half.layer.module, half.best.T
    assert isinstance(module, nn.Conv2d)
    for one, of_filter in zip(image.split(1), r.split(1), strict=True):
        mean = conv2d_weight(one, module.weight.shape, of_filter, module.stride, 0, module.dilation)
        torch.maximum(best, mean.reshape(best.shape), out=best)  # its channels may be last, like the image's


def _raise_by_products(half: _Half, entries: Tensor, r: Tensor) -> None:
    """Raise to the same products; `entries` (samples, patches, entries), `r` (samples, filters, patches)."""
    best = half.best.T
    means = torch.empty_like(best)
    # With few patches writing the product dominates: it has to stay in a core's cache.
    rows = len(best) if r.shape[2] >= FEW else max(1, IN_CACHE // best.shape[1])
    for some, mean, of_filters in zip(best.split(rows), means.split(rows), r.split(rows, 1), strict=True):
        for one, of_patch in zip(entries, of_filters, strict=True):
            torch.maximum(some, torch.mm(of_patch, one, out=mean), out=some)


def _samples(*numbers: int) -> int:
    """Return how many samples to process at a time if each needs up to `numbers` floats."""
    return max(1, MEMORY // (4 * max(numbers)))
