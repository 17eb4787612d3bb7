"""Sizes, multiply-adds and layer budgets of a network, and the size of the calibration set."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from luigi_prune.compute.duplicates import duplicate
from luigi_prune.compute.network_inputs import Inputs, call_on_copy, network_device, sample_count
from luigi_prune.compute.own_draws import own_draws
from luigi_prune.compute.pruning.low_rank.decomposed import Decomposed
from luigi_prune.compute.pruning.problem.call_hooks import after_calls
from luigi_prune.compute.pruning.problem.layers import COUNTED, compressible_modules, evaluating
from luigi_prune.compute.pruning.problem.masks import Masks, kept_counts, kept_of
from luigi_prune.compute.pruning.problem.relaid_weights import UpConvolution
from luigi_prune.compute.pruning.problem.weight_matrices import (
    in_layers,
    layer_masks,
    needs_equivalents,
    weight_matrices,
)

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

    For a decomposed layer: the weights of its factors, and the total of the original layer. The projections of
    attention and the matrices of a recurrent module are layers of their own.
    """
    rows: list[tuple[str, tuple[int, ...], list[tuple[Tensor, Tensor | None]]]] = []
    by_layer = layer_masks(network, masks or {})
    inside = {id(part): name for name, module in network.named_modules() if isinstance(module, Decomposed)
              for part in module}  # fmt: skip
    for name, module, weight in weight_matrices(network):
        outer, entries = inside.get(id(module)), (weight, by_layer.get(name))
        if outer is None:
            rows.append((name, tuple(weight.shape), [entries]))
        elif rows and rows[-1][0] == outer:
            rows[-1][2].append(entries)
        else:
            decomposed = network.get_submodule(outer)
            assert isinstance(decomposed, Decomposed)
            rows.append((outer, decomposed.shape, [entries]))
    counts = iter(kept_of(mask for _, _, parts in rows for _, mask in parts if mask is not None))
    return [
        LayerBudget(
            name,
            shape,
            sum(weight.numel() if mask is None else next(counts) for weight, mask in parts),
            math.prod(shape),
        )
        for name, shape, parts in rows
    ]


@contextmanager
def counting_outputs(network: nn.Module, samples: int) -> Iterator[dict[str, int]]:
    """Fill the yielded dictionary, during one run of `network` on `samples` samples, as `count_outputs` returns it."""
    outputs: dict[str, int] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            count = output.numel()
            if isinstance(module, UpConvolution):
                count = inputs[0].numel() // module.in_channels * module.out_channels
            outputs[name] += count // samples

        return hook

    with ExitStack() as stack:
        for name, module in network.named_modules():
            if isinstance(module, COUNTED):
                outputs[name] = 0
                stack.callback(after_calls(module, note(name)).remove)
        yield outputs


def count_outputs(network: nn.Module, example_input: Inputs) -> dict[str, int]:
    """Return, per name of a layer (see `in_layers`), how many numbers it computes for one sample, over all calls.

    That is filters times positions: the number of times that each weight is used. A transposed convolution uses its
    weights once per input position.
    """
    device = network_device(network, example_input)
    counting = counting_outputs(network, sample_count(example_input))
    with counting as outputs, torch.no_grad(), own_draws(device), evaluating(network):
        call_on_copy(network, example_input)
    return outputs


def count_flops(network: nn.Module, example_input: Inputs, masks: Masks | None = None) -> int:
    """Return the multiply-adds of one sample: of every layer the kept weights times the positions they are used at.

    `example_input` is a batch of any size. Products of activations, as in attention, are not counted: their number
    depends on no weight (`count_products`).
    """
    if needs_equivalents(network):
        network, masks = in_layers(duplicate(network), masks)
    return flops_of(network, count_outputs(network, example_input), masks)


def flops_at(evaluations: int, network: nn.Module, outputs: dict[str, int], masks: Masks | None = None) -> int:
    """Return `flops_of` as if a network of continuous depth were evaluated `evaluations` times; 0: no such network.

    `network`: as its last run, which counted `outputs`, left it. Adaptive solvers evaluate networks with other weights
    at other times. Counts before and after pruning only compare for one number of evaluations, which is that of masks,
    too: the original network's.
    """
    flops = flops_of(network, outputs, masks)
    own = getattr(network, "evaluations", 0)
    return round(flops * evaluations / own) if evaluations and own else flops


def flops_of(network: nn.Module, outputs: dict[str, int], masks: Masks | None = None) -> int:
    """Return the multiply-adds of `network`, a result of `in_layers`, for the counts of `count_outputs`."""
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


def count_products(network: nn.Module, example_input: Inputs) -> int:
    """Return the multiply-adds of one sample in products of activations with each other: those of attention."""
    # Fused attention is not counted on a CPU; its plain form is two products.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad(), evaluating(network):
        call_on_copy(network, example_input)
    by_operator = counter.get_flop_counts().get("Global", {})
    total = sum(count for operator, count in by_operator.items() if "bmm" in str(operator))
    return total // 2 // sample_count(example_input)


def calibration_size(network: nn.Module, example_input: Inputs, delta_s: float, validation_count: int) -> int:
    """Return the number of validation samples that data-dependent methods read: at most half of `validation_count`.

    C log(8 eta_max eta_total / delta) samples bound the sensitivities of all layers with probability 1 - delta
    (SiPP, arXiv 1910.05422), where eta is the number of outputs of a layer for one sample.
    """
    if needs_equivalents(network):
        network, _ = in_layers(duplicate(network))
    outputs = count_outputs(network, example_input)
    etas = [outputs[name] for name, _ in compressible_modules(network)]
    half = max(1, validation_count // 2)
    if not etas or not max(etas):
        return min(1, half)
    needed = math.ceil(CALIBRATION_CONSTANT * math.log(8 * max(etas) * sum(etas) / delta_s))
    return max(1, min(needed, half))
