"""The order of channels that sensitivities leave open: equal ones, and those of 0 (PFP, arXiv 1911.07412).

A sensitivity is a maximum of shares, so it saturates at 1: behind a ReLU, which makes patches with a single input, many
channels of a layer may have it. Among equals the sum of the sensitivity over samples decides. A channel of sensitivity
0 is used last, whatever the others are.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from luigi_prune.compute.pruning.problem.granularity import is_protected
from luigi_prune.compute.pruning.problem.layers import Layer
from luigi_prune.compute.pruning.problem.patches import is_plain, unfold, visit_inputs
from luigi_prune.compute.pruning.problem.records import Problem, Scores
from luigi_prune.compute.pruning.scores.largest_products import PRODUCTS, images, reciprocal_sums, reciprocals
from luigi_prune.compute.pruning.scores.unfolded_shares import UnfoldedShares
from luigi_prune.compute.zeros import places, to_numbers

ALIKE = 2.0**-30  # relative: differences that order equal scores, below the resolution of single precision
LAST = 2.0**-20  # of a layer's smallest positive score: the score of a channel that has none
SEEDS = 8  # products per sample and channel that are computed first, for thresholds that rule out most others
MEMORY = 2**25  # bytes of bounds that are held at a time


def order_channels(problem: Problem, scores: Scores) -> Scores:
    """Return the scores, one per channel, in double precision, with ties broken and without zeros if others differ."""
    scores = [score.double() for score in scores]
    equals = [
        _equals(score) & (not is_protected("channel", layer, problem))
        for score, layer in zip(scores, problem.layers, strict=True)
    ]
    tied = list(to_numbers(each.any() for each in equals))
    if problem.rules.keeps_last_of_equals:
        keys = [torch.arange(len(score), device=score.device).double() for score in scores]
    elif any(tied):
        indices = [places(each) if some else places(each[:0]) for each, some in zip(equals, tied, strict=True)]
        keys = sums_over_samples(problem, indices)
    else:
        keys = [torch.zeros_like(score) for score in scores]
    ordered = [_raised(score, key) for score, key in zip(scores, keys, strict=True)]
    return [place_zeros_last(score) for score in ordered] if problem.rules.ranks_channels_without_score else ordered


def _raised(score: Tensor, key: Tensor) -> Tensor:
    """Return `score` raised by up to one part in 2^30, in proportion to `key`, which is not negative."""
    return score * (1 + ALIKE * key / key.max().clamp_min(1e-300)) if key.numel() else score


def place_zeros_last(score: Tensor) -> Tensor:
    """Return `score` with zeros replaced by a number below all others; a score of zeros only is returned as it is."""
    positive = score > 0
    if not bool(positive.any()):
        return score
    return torch.where(positive, score, LAST * score[positive].amin())


def _equals(score: Tensor) -> Tensor:
    """Return which entries are positive and occur more than once."""
    _, number, counts = score.unique(return_inverse=True, return_counts=True)
    return (counts[number] > 1) & (score > 0)


def sums_over_samples(problem: Problem, channels: list[Tensor]) -> list[Tensor]:
    """Return per layer the sums over samples of the sensitivities of `channels` (indices), 0 for other channels.

    As in the sensitivity, inputs of both signs count as two samples; so does every position of a sequence.
    """
    sums = [layer.weight.new_zeros(layer.weight.shape[1], dtype=torch.float64) for layer in problem.layers]

    def visit(index: int, value: Tensor, sample: int) -> None:
        if not len(channels[index]):
            return
        for inputs in (value.clamp_min(0), (-value).clamp_min(0)):
            if bool(inputs.any()):
                found = sample_sensitivities(problem, problem.layers[index], inputs, channels[index])
                sums[index].index_add_(0, channels[index], found.sum(0, dtype=torch.float64))

    visit_inputs(problem, visit)
    return sums


def sample_sensitivities(problem: Problem, layer: Layer, inputs: Tensor, channels: Tensor) -> Tensor:
    """Return the sensitivities of `channels` for every sample of non-negative `inputs`: (samples, channels)."""
    relative = problem.rules.scales_epsilon
    if layer.groups > 1:
        return torch.stack([_grouped_sensitivities(layer, sample, relative)[channels] for sample in inputs.split(1)])
    if not is_plain(layer) or layer.heads > 1:
        return torch.cat([_unfolded_sensitivities(layer, sample, channels, relative) for sample in inputs.split(1)])
    image = images(layer, inputs)
    weight = layer.weight.detach().float()
    largest = image.new_zeros(len(image), len(channels))
    entries = channels.numel() * weight[0, 0].numel()
    for sign in (1, -1):
        half = (sign * weight).clamp_min(0)
        of_channels = _of_channels(half, channels)
        r = reciprocal_sums(layer, image, half.flatten(1), relative=relative)
        step = max(1, MEMORY // (4 * entries * r[0, 0].numel()))
        for some, of_some, best in zip(image.split(step), r.split(step), largest.split(step), strict=True):
            values = _entries(layer, some.index_select(1, channels))
            torch.maximum(best, _largest_shares(values, of_some.flatten(2), of_channels, len(channels)), out=best)
    return largest.clamp_max_(1)


def _grouped_sensitivities(layer: Layer, inputs: Tensor, relative: bool) -> Tensor:
    """Return the sensitivities of all channels of a grouped convolution for one sample."""
    shares = UnfoldedShares(layer, mean=False, relative=relative)
    shares.see(inputs)
    return shares.shares().transpose(0, 1).flatten(1).amax(1)


def _unfolded_sensitivities(layer: Layer, inputs: Tensor, channels: Tensor, relative: bool) -> Tensor:
    """Return the sensitivities of `channels` for layers of any kind, and for channels of several entries (heads)."""
    weight, entries = layer.weight.detach().float(), unfold(layer, inputs)  # (samples, 1, entries, patches)
    by_channel = entries.view(len(entries), weight.shape[1], -1, entries.shape[3])
    values = by_channel.index_select(1, channels).flatten(1, 2)
    largest = values.new_zeros(len(values), len(channels))
    for sign in (1, -1):
        half = (sign * weight).clamp_min(0)
        r = reciprocals(half.flatten(1) @ entries, relative=relative)[:, 0]
        shares = _largest_shares(values, r, _of_channels(half, channels), len(channels))
        torch.maximum(largest, shares, out=largest)
    return largest.clamp_max_(1)


def _of_channels(weight: Tensor, channels: Tensor) -> Tensor:
    """Return the weights of `channels` as (entries, filters)."""
    return weight.view(*weight.shape[:2], -1).index_select(1, channels).permute(1, 2, 0).flatten(0, 1)


def _entries(layer: Layer, image: Tensor) -> Tensor:
    """Return the padded input as (samples, entries of a filter, patches)."""
    module = layer.module
    if not isinstance(module, nn.Conv2d):
        return image.flatten(2)
    return F.unfold(image, module.kernel_size, module.dilation, 0, module.stride)


def _largest_shares(values: Tensor, r: Tensor, weight: Tensor, channels: int) -> Tensor:
    """Return per sample and channel the largest w_ij r_i(p) a_j(p) over filters i, patches p and its entries j.

    `values`: a, (samples, entries, patches); `r`: (samples, filters, patches); `weight`: (entries, filters). Products
    are computed where the product of the largest r and the largest w exceeds the best so far.
    """
    samples, entries, count = values.shape
    bound = (values * weight.amax(1)[:, None] * r.amax(1)[:, None]).view(samples * channels, -1)
    rows = r.transpose(1, 2).reshape(samples * count, -1)
    flat, best = values.reshape(-1), bound.new_zeros(samples * channels)

    def raise_by(at: Tensor) -> None:
        for some in at.split(max(1, PRODUCTS // weight.shape[1])):
            line, patch = some // count, some % count
            sample, entry = line // entries, line % entries
            products = rows.index_select(0, sample * count + patch) * weight.index_select(0, entry)
            owner = sample * channels + entry // (entries // channels)
            best.scatter_reduce_(0, owner, products.amax(1) * flat.take(some), "amax")

    first = bound.topk(min(SEEDS, bound.shape[1]), dim=1).indices
    raise_by((first + torch.arange(len(bound), device=bound.device)[:, None] * bound.shape[1]).flatten())
    raise_by(places(bound > best[:, None]))
    return best.view(samples, channels)
