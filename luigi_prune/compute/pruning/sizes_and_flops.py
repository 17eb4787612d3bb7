"""Sizes, multiply-adds and layer budgets of a network, and the size of the calibration set."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from luigi_prune.compute.network_inputs import Inputs, call, sample_count
from luigi_prune.compute.pruning.low_rank.decomposed import Decomposed, current_layers
from luigi_prune.compute.pruning.problem.layers import COUNTED, compressible_modules, evaluating
from luigi_prune.compute.pruning.problem.masks import Masks, kept_counts

CALIBRATION_CONSTANT = 3  # C of the SiPP and PFP papers' sample sizes


@dataclass(frozen=True)
class LayerBudget:
    """Kept and total weights of a compressible layer."""

    name: str
    shape: tuple[int, ...]
    kept: int
    total: int


def count_size(network: nn.Module, masks: Masks | None = None) -> int:
    """Return the number of entries that `masks` keep, over all parameters of `network`; shared ones count once.

    Without masks nothing is pruned: all entries count, zeros too.
    """
    return sum(kept_counts(network, masks, network.parameters()))


def layer_budgets(network: nn.Module, masks: Masks | None = None) -> list[LayerBudget]:
    """Return the kept and total weights of every compressible layer, in order.

    For a decomposed layer: the weights of its factors, and the total of the original layer.
    """
    budgets = []
    layers = current_layers(network)
    parts = [list(module) if isinstance(module, Decomposed) else [module] for _, module in layers]
    weights = (part.get_parameter("weight") for parts_of_one in parts for part in parts_of_one)
    counts = iter(kept_counts(network, masks, weights))
    for (name, module), parts_of_one in zip(layers, parts, strict=True):
        kept = sum(next(counts) for _ in parts_of_one)
        shape = module.shape if isinstance(module, Decomposed) else tuple(module.get_parameter("weight").shape)
        budgets.append(LayerBudget(name, shape, kept, math.prod(shape)))
    return budgets


def count_outputs(network: nn.Module, example_input: Inputs) -> dict[str, int]:
    """Return, per name of a `Conv2d` or `Linear`, how many numbers it computes for one sample, over all calls."""
    outputs: dict[str, int] = {}
    samples = sample_count(example_input)

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            outputs[name] += output.numel() // samples

        return hook

    with ExitStack() as stack, torch.no_grad(), evaluating(network):
        for name, module in network.named_modules():
            if isinstance(module, COUNTED):
                outputs[name] = 0
                stack.callback(module.register_forward_hook(note(name)).remove)
        call(network, example_input)
    return outputs


def count_flops(network: nn.Module, example_input: Inputs, masks: Masks | None = None) -> int:
    """Return the multiply-adds of one sample: kept weights times output positions of every `Conv2d` and `Linear`.

    Grouped convolutions are counted, too. `example_input` is a batch of any size.
    """
    return flops_of(network, count_outputs(network, example_input), masks)


def flops_of(network: nn.Module, outputs: dict[str, int], masks: Masks | None = None) -> int:
    """Return the multiply-adds of `network` under `masks` for the output counts of `count_outputs`."""
    weights = {
        name: module.weight
        for name, module in network.named_modules()
        if isinstance(module, COUNTED) and isinstance(module.weight, Tensor)
    }
    kept = kept_counts(network, masks, weights.values())
    return sum(
        count * (outputs.get(name, 0) // weight.shape[0])
        for (name, weight), count in zip(weights.items(), kept, strict=True)
    )


def calibration_size(network: nn.Module, example_input: Inputs, delta_s: float, validation_count: int) -> int:
    """Return the number of validation samples that data-dependent methods read: at most half of `validation_count`.

    C log(8 eta_max eta_total / delta) samples bound the sensitivities of all layers with probability 1 - delta
    (SiPP, arXiv 1910.05422), where eta is the number of outputs of a layer for one sample.
    """
    outputs = count_outputs(network, example_input)
    etas = [outputs[name] for name, _ in compressible_modules(network)]
    half = max(1, validation_count // 2)
    if not etas or not max(etas):
        return min(1, half)
    needed = math.ceil(CALIBRATION_CONSTANT * math.log(8 * max(etas) * sum(etas) / delta_s))
    return max(1, min(needed, half))
