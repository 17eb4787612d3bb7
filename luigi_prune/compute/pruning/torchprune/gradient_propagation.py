"""`rules="reference"`: the differences of torchprune from the papers, for comparison only (docs/fidelity.md).

Its propagation depends on calibration data, changes outputs, and leaves BatchNorm alone; compare `propagation`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from luigi_prune.compute.masked import apply_masks
from luigi_prune.compute.network_inputs import Inputs, call_on_copy
from luigi_prune.compute.pruning.problem.batches import merge_for_gradients
from luigi_prune.compute.pruning.problem.call_hooks import before_calls
from luigi_prune.compute.pruning.problem.layers import EMBEDDINGS, evaluating
from luigi_prune.compute.pruning.problem.masks import Masks
from luigi_prune.compute.pruning.problem.records import Batches, Loss, Problem, Rules
from luigi_prune.compute.pruning.structure.channel_hooks import channels_last
from luigi_prune.compute.pruning.torchprune.sampling_draws import REFERENCE_SELECTIONS

THINET_POSITIONS = 10  # output positions that ThiNet reads in each of the first batches


def ends_by_order(
    network: nn.Module, modules: list[tuple[str, nn.Module]], example_input: Inputs
) -> tuple[set[str], set[str]]:
    """Return the names of the first and of the last layer in the order of `modules()`."""
    return {name for name, _ in modules[:1]}, {name for name, _ in modules[-1:]}


def samples_of_first_batches(sizes: Tensor, chance: Tensor) -> Tensor:
    """Return per position a sample's number, ten positions to a batch; the number of samples after the last batch."""
    batch = torch.arange(len(chance), device=chance.device) // THINET_POSITIONS
    size, start = (torch.nn.functional.pad(each, (0, len(chance))) for each in (sizes, sizes.cumsum(0) - sizes))
    number = start[batch] + (chance * size[batch]).long().minimum((size[batch] - 1).clamp_min(0))
    return torch.where(batch < len(sizes), number, sizes.sum())


def propagate_gradients(
    network: nn.Module, masks: Masks, problem: Problem, structured: bool, protected: frozenset[str] = frozenset()
) -> None:
    """Prune from `network` and `masks`, in place, all entries with an exactly zero gradient over the calibration set.

    Weight methods prune every such entry except in embeddings. Filter methods prune filters whose gradient is entirely
    zero, and input channels that are constant over all samples and positions. Parameters named in `protected` do not
    change.
    """
    assert problem.loss is not None
    layers = problem.layers
    gradients, constant = _gradients(
        network,
        [layer.name for layer in layers],
        merge_for_gradients(problem.batches, problem.outputs),
        problem.loss,
    )
    embeddings = {id(m.weight) for m in network.modules() if isinstance(m, EMBEDDINGS)}
    if structured:
        for layer in layers:
            rows = (gradients[layer.weight_name] != 0).flatten(1).any(1)
            shape = [1] * (layer.weight.dim() - 2)
            columns = ~constant.get(
                layer.name, torch.zeros(layer.weight.shape[1], dtype=torch.bool, device=rows.device)
            )
            masks[layer.weight_name] = masks[layer.weight_name] & rows.view(-1, 1, *shape) & columns.view(1, -1, *shape)
    else:
        for name, parameter in network.named_parameters():
            if id(parameter) not in embeddings and name not in protected:
                masks[name] = masks[name] & (gradients[name] != 0)
    apply_masks(network, masks)


def _gradients(
    network: nn.Module, names: list[str], batches: Batches, loss: Loss
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the summed gradient of every parameter and which input channels of the named layers are constant."""
    modules = dict(network.named_modules())
    smallest: dict[str, Tensor] = {}
    largest: dict[str, Tensor] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            rows = channels_last(module, inputs[0].detach())
            low, high = rows.amin(0), rows.amax(0)
            smallest[name] = torch.minimum(smallest.get(name, low), low)
            largest[name] = torch.maximum(largest.get(name, high), high)

        return hook

    total = {name: torch.zeros_like(parameter) for name, parameter in network.named_parameters()}
    parameters = list(network.parameters())
    needs = [parameter.requires_grad for parameter in parameters]
    try:
        network.requires_grad_(True)
        with ExitStack() as stack, torch.enable_grad(), evaluating(network):
            for name in names:
                stack.callback(before_calls(modules[name], note(name)).remove)
            for inputs, targets in batches:
                value = loss(call_on_copy(network, inputs), targets)
                gradients = torch.autograd.grad(value, parameters, allow_unused=True)
                for name, gradient in zip(total, gradients, strict=True):
                    if gradient is not None:
                        total[name] += gradient
    finally:
        for parameter, needed in zip(parameters, needs, strict=True):
            parameter.requires_grad_(needed)
    return total, {name: smallest[name] == largest[name] for name in smallest}


REFERENCE = Rules(
    name="reference",
    find_ends=ends_by_order,
    takes_every_kind=False,
    protects_ends=False,  # that is left to each allocation
    zeros_are_pruned=True,
    prunes_biases=False,
    selections=REFERENCE_SELECTIONS,
    propagate_by_data=propagate_gradients,
    thinet_samples=samples_of_first_batches,
    thinet_prunes_last=True,
    pca_adds_bias_twice=True,
    scales_epsilon=False,
    keeps_last_of_equals=True,
    ranks_channels_without_score=False,
    spends_remainder=False,
)
