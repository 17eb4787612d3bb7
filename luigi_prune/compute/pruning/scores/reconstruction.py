"""ThiNet: which channels add least to a layer's outputs, together (arXiv 1707.06342)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from luigi_prune.compute.pruning.layers import Layer
from luigi_prune.compute.pruning.patches import padded, visit_inputs
from luigi_prune.compute.pruning.protocol import Problem, Scores

POSITIONS = 100  # outputs of a layer that are looked at


def greedy_rank(problem: Problem) -> Scores:
    """Return the rank of every input channel in the order in which the greedy search leaves channels out.

    The rules say whether the first ones are pruned first, and at which samples the search looks (docs/fidelity.md).
    """
    features = [torch.zeros(layer.weight.shape[1], POSITIONS, device=layer.weight.device) for layer in problem.layers]
    chances = [
        torch.rand(3, POSITIONS, generator=problem.generator("greedy_rank", layer.name)) for layer in problem.layers
    ]
    sizes = torch.tensor([len(inputs) for inputs, _ in problem.batches])
    seen: set[tuple[int, int]] = set()

    def visit(index: int, value: Tensor, start: int) -> None:
        if (index, start) not in seen:  # a shared layer: its first call stands for all
            seen.add((index, start))
            chance = chances[index].to(value.device)
            sample = problem.rules.thinet_samples(sizes.to(value.device), chance[0])
            _fill(features[index], problem.layers[index], value, sample - start, chance)

    visit_inputs(problem, visit)
    ranks = []
    for layer, found in zip(problem.layers, features, strict=True):
        alive = problem.kept(layer).transpose(0, 1).flatten(1).any(1)
        ranks.append(rank_channels(found, alive, first_is_best=problem.rules.thinet_prunes_last))
    return ranks


def uniform_samples(sizes: Tensor, chance: Tensor) -> Tensor:
    """Return per position the number of a sample, uniform over batches of `sizes`, from `chance` in [0, 1)."""
    return (chance * sizes.sum()).long().clamp_max(int(sizes.sum()) - 1)


def _fill(features: Tensor, layer: Layer, value: Tensor, sample: Tensor, chance: Tensor) -> None:
    """Write the channels' contributions to those outputs whose `sample`, counted from its first, is among `value`'s."""
    here = torch.nonzero((sample >= 0) & (sample < len(value))).flatten()
    if not here.numel():
        return
    weight = layer.weight.detach().float()
    row = (chance[1, here] * len(weight)).long().clamp_max(len(weight) - 1)
    if isinstance(layer.module, nn.Conv2d):
        window = _windows(layer.module, padded(layer, value), sample[here], chance[2, here])
        features[:, here] = (window * weight[row]).flatten(2).sum(2).T
    else:
        position = (chance[2, here] * value.shape[1]).long().clamp_max(value.shape[1] - 1)
        features[:, here] = (value[sample[here], position] * weight[row]).T


def _windows(module: nn.Conv2d, full: Tensor, sample: Tensor, chance: Tensor) -> Tensor:
    """Return one random patch of each sample: (samples, channels, kernel height, kernel width)."""
    sizes = [
        (size - dilation * (kernel - 1) - 1) // stride + 1
        for size, dilation, kernel, stride in zip(
            full.shape[-2:], module.dilation, module.kernel_size, module.stride, strict=True
        )
    ]
    position = (chance * sizes[0] * sizes[1]).long().clamp_max(sizes[0] * sizes[1] - 1)
    corner = (position // sizes[1] * module.stride[0], position % sizes[1] * module.stride[1])
    index = [
        start[:, None] + dilation * torch.arange(kernel, device=full.device)
        for start, dilation, kernel in zip(corner, module.dilation, module.kernel_size, strict=True)
    ]
    channels = torch.arange(full.shape[1], device=full.device)
    return full[
        sample[:, None, None, None], channels[None, :, None, None], index[0][:, None, :, None], index[1][:, None, None]
    ]


def rank_channels(features: Tensor, alive: Tensor, *, first_is_best: bool) -> Tensor:
    """Return the place of every channel in the order in which it is left out, 1 to c; 0 for those not `alive`.

    `features` (channels, positions): contributions. The set of left-out channels grows by floor(sqrt(c)) at a time,
    by those with which its sum has the least squared norm.
    """
    count = len(features)
    together = max(1, math.isqrt(count))
    rest = torch.nonzero(alive).flatten()
    total = torch.zeros(features.shape[1], dtype=features.dtype, device=features.device)
    scores = torch.zeros(count, device=features.device)
    place = 0
    while rest.numel():
        norms = (features[rest] + total).square().sum(1)
        chosen = rest[norms.argsort(stable=True)[:together]]
        places = torch.arange(place, place + len(chosen), device=features.device)
        scores[chosen] = (count - places if first_is_best else places + 1).float()
        total = total + features[chosen].sum(0)
        rest = rest[~torch.isin(rest, chosen)]
        place += len(chosen)
    return scores
