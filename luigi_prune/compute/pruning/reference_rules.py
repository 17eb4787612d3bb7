"""Propagation as the reference does it (`rules="reference"`): by gradients on calibration data. For comparison only.

It depends on the data, moves outputs, and leaves BatchNorm alone; `propagation` is what we do (docs/fidelity.md).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from luigi_prune.compute.masked import apply_masks
from luigi_prune.compute.pruning.layers import Layer, evaluating
from luigi_prune.compute.pruning.masks import Masks
from luigi_prune.compute.pruning.protocol import Batches, Loss
from luigi_prune.compute.pruning.taps import channels_last

LARGEST_BATCH = 128


def propagate_gradients(
    network: nn.Module,
    masks: Masks,
    layers: list[Layer],
    batches: Batches,
    loss: Loss,
    *,
    structured: bool,
    protected: frozenset[str] = frozenset(),
) -> None:
    """Remove, in place, what has an exactly zero gradient over all of `batches`.

    Weight methods lose every such entry except in embeddings. Filter methods lose filters whose whole gradient is zero,
    and input channels that are constant over all samples and positions. Parameters called `protected` lose nothing.
    """
    gradients, constant = _gradients(network, [layer.name for layer in layers], batches, loss)
    embeddings = {id(m.weight) for m in network.modules() if isinstance(m, nn.Embedding)}
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
                stack.callback(modules[name].register_forward_pre_hook(note(name)).remove)
            for inputs, targets in merge_batches(batches):
                value = loss(network(inputs), targets)
                found = torch.autograd.grad(value, parameters, allow_unused=True)
                for name, gradient in zip(total, found, strict=True):
                    if gradient is not None:
                        total[name] += gradient
    finally:
        for parameter, needed in zip(parameters, needs, strict=True):
            parameter.requires_grad_(needed)
    return total, {name: smallest[name] == largest[name] for name in smallest}


def merge_batches(batches: Batches, largest: int = LARGEST_BATCH) -> Batches:
    """Return the same samples in fewer batches: evaluation mode sees every sample for itself."""
    merged: Batches = []
    held: list[tuple[Tensor, Tensor]] = []

    def flush() -> None:
        if held:
            merged.append((torch.cat([x for x, _ in held]), torch.cat([y for _, y in held])))
            held.clear()

    for inputs, targets in batches:
        same = not held or (held[0][0].shape[1:] == inputs.shape[1:] and held[0][1].shape[1:] == targets.shape[1:])
        if not same or sum(len(x) for x, _ in held) + len(inputs) > largest:
            flush()
        held.append((inputs, targets))
    flush()
    return merged
