"""ThiNet: which set of channels contributes least to a layer's outputs (arXiv 1707.06342)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from luigi_prune.compute.network_inputs import sample_count
from luigi_prune.compute.pruning.problem.layers import Layer
from luigi_prune.compute.pruning.problem.patches import is_plain, padded, unfold, visit_inputs
from luigi_prune.compute.pruning.problem.records import Problem, Scores

POSITIONS = 100  # sampled outputs of a layer


def greedy_rank(problem: Problem) -> Scores:
    """Return the rank of every input channel in the order in which the greedy search leaves channels out.

    The rules determine whether the first ones are pruned first, and the samples of the search (docs/fidelity.md).
    """
    features = [torch.zeros(layer.weight.shape[1], POSITIONS, device=layer.weight.device) for layer in problem.layers]
    chances = [
        torch.rand(3, POSITIONS, generator=problem.generator("greedy_rank", layer.name)) for layer in problem.layers
    ]
    sizes = torch.tensor([sample_count(inputs) for inputs, _ in problem.batches])
    seen: set[tuple[int, int]] = set()

    def visit(index: int, value: Tensor, start: int) -> None:
        if (index, start) not in seen:  # only the first call of a shared layer counts
            seen.add((index, start))
            chance = chances[index].to(value.device)
            sample = problem.rules.thinet_samples(sizes.to(value.device), chance[0])
            _fill(features[index], problem.layers[index], value, sample - start, chance)

    visit_inputs(problem, visit)
    ranks = []
    for layer, contributions in zip(problem.layers, features, strict=True):
        alive = problem.kept(layer).transpose(0, 1).flatten(1).any(1)
        ranks.append(rank_channels(contributions, alive, first_is_best=problem.rules.thinet_prunes_last))
    return ranks


def uniform_samples(sizes: Tensor, chance: Tensor) -> Tensor:
    """Return per position the number of a sample, uniform over batches of `sizes`, from `chance` in [0, 1)."""
    return (chance * sizes.sum()).long().clamp_max(int(sizes.sum()) - 1)


def _fill(features: Tensor, layer: Layer, value: Tensor, sample: Tensor, chance: Tensor) -> None:
    """Write the channels' contributions to the outputs whose `sample`, relative to the batch, is in `value`."""
    inside = torch.nonzero((sample >= 0) & (sample < len(value))).flatten()
    if not inside.numel():
        return
    weight = layer.by_entry(layer.weight.detach().float()) if layer.groups > 1 else layer.weight.detach().float()
    row = (chance[1, inside] * len(weight)).long().clamp_max(len(weight) - 1)
    if not is_plain(layer):
        entries = unfold(layer, value)  # (samples, groups, entries, patches)
        position = (chance[2, inside] * entries.shape[3]).long().clamp_max(entries.shape[3] - 1)
        group = row * layer.groups // len(weight)
        products = entries[sample[inside], group, :, position] * weight.flatten(1)[row]
        by_group = features.view(layer.groups, weight.shape[1], -1)  # channels of other groups contribute nothing
        by_group[group, :, inside] = products.unflatten(1, (weight.shape[1], -1)).sum(2)
    elif isinstance(layer.module, nn.Conv2d):
        window = _windows(layer.module, padded(layer, value), sample[inside], chance[2, inside])
        features[:, inside] = (window * weight[row]).flatten(2).sum(2).T
    else:
        position = (chance[2, inside] * value.shape[1]).long().clamp_max(value.shape[1] - 1)
        products = value[sample[inside], position] * weight[row].flatten(1)
        features[:, inside] = products.unflatten(1, (len(features), -1)).sum(2).T


def _windows(module: nn.Conv2d, image: Tensor, sample: Tensor, chance: Tensor) -> Tensor:
    """Return one random patch of each sample: (samples, channels, kernel height, kernel width)."""
    sizes = [
        (size - dilation * (kernel - 1) - 1) // stride + 1
        for size, dilation, kernel, stride in zip(
            image.shape[-2:], module.dilation, module.kernel_size, module.stride, strict=True
        )
    ]
    position = (chance * sizes[0] * sizes[1]).long().clamp_max(sizes[0] * sizes[1] - 1)
    corner = (position // sizes[1] * module.stride[0], position % sizes[1] * module.stride[1])
    index = [
        start[:, None] + dilation * torch.arange(kernel, device=image.device)
        for start, dilation, kernel in zip(corner, module.dilation, module.kernel_size, strict=True)
    ]
    channels = torch.arange(image.shape[1], device=image.device)
    return image[
        sample[:, None, None, None], channels[None, :, None, None], index[0][:, None, :, None], index[1][:, None, None]
    ]


def rank_channels(features: Tensor, alive: Tensor, *, first_is_best: bool) -> Tensor:
    """Return the rank of every channel in the order of removal, 1 to c; 0 for channels not `alive`.

    `features` (channels, positions): contributions. The set of removed channels grows by floor(sqrt(c)) at a time, by
    those with which the sum of its contributions has the least squared norm. `first_is_best`: the reverse order, c to
    1.
    """
    count = len(features)
    step = max(1, math.isqrt(count))
    rest = torch.nonzero(alive).flatten()
    total = torch.zeros(features.shape[1], dtype=features.dtype, device=features.device)
    scores = torch.zeros(count, device=features.device)
    place = 0
    while rest.numel():
        norms = (features[rest] + total).square().sum(1)
        chosen = rest[norms.argsort(stable=True)[:step]]
        places = torch.arange(place, place + len(chosen), device=features.device)
        scores[chosen] = (count - places if first_is_best else places + 1).float()
        total = total + features[chosen].sum(0)
        rest = rest[~torch.isin(rest, chosen)]
        place += len(chosen)
    return scores
