"""Layers that an output depends on in a way that the probe does not see: routing, comparisons, lookups, branches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from luigi_prune.compute.network_inputs import Inputs, call_on_copy, network_device, tensors_in
from luigi_prune.compute.own_draws import own_draws
from luigi_prune.compute.pruning.problem.call_hooks import after_calls, before_calls
from luigi_prune.compute.pruning.problem.layers import evaluating
from luigi_prune.compute.pruning.structure.channel_hooks import Structure, axes_of, is_reader

HIDDEN = "its outputs depend on layers in a way that gradients do not show"
BRANCHING = "which of its layers it calls depends on its inputs"
DRAWS = 4  # of noise; few of them leave every choice between experts or entries of a table as it was
_SPREAD = 3.0  # of the noise, relative to the outputs'


def unseen(
    network: nn.Module, whole: Structure, example: Inputs, batches: Iterable[Inputs]
) -> tuple[str, list[str]] | None:
    """Return why the structure of `network` is not the whole truth, and the names of layers that show it, or None.

    `whole`: the structure with all weights. `batches`: more inputs, for which branches may call layers that were not
    called in the probe; they are read only if there are such layers.
    """
    if names := _other_layers(network, whole, chain([example], batches)):
        return BRANCHING, names
    if names := hidden_layers(network, whole, example):
        return HIDDEN, names
    return None


@torch.no_grad()
def _other_layers(network: nn.Module, whole: Structure, batches: Iterable[Inputs]) -> list[str]:
    """Return the layers that are called for these inputs, but were not in the run of `whole`."""
    others = {n: m for n, m in network.named_modules() if is_reader(m) and n not in whole.calls}
    if not others:
        return []
    called: dict[str, bool] = {}

    def note(name: str) -> Callable[..., None]:
        return lambda module, inputs: called.update({name: True})

    with ExitStack() as stack, own_draws(network_device(network)), evaluating(network):
        for name, module in others.items():
            stack.callback(before_calls(module, note(name)).remove)
        for inputs in batches:
            call_on_copy(network, inputs)
    return [name for name in others if name in called]


@torch.no_grad()
def hidden_layers(network: nn.Module, whole: Structure, example: Inputs) -> list[str]:
    """Return the layers with filters that no gradient comes from, although noise in them changes the output.

    `whole`: the structure of the network with all its weights. A filter that the output does not use at all, in an
    auxiliary head for instance, is no such filter.
    """
    modules = dict(network.named_modules())
    suspects = {
        name: ~reaching
        for name, reaching in whole.reaching.items()
        if is_reader(modules[name]) and not bool(reaching.all())
    }
    if not suspects:
        return []
    before = _outputs(network, example, {})
    if not _changes(network, example, suspects, before):
        return []
    return [name for name in suspects if _changes(network, example, {name: suspects[name]}, before)] or list(suspects)


def _changes(network: nn.Module, example: Inputs, filters: dict[str, Tensor], before: list[Tensor]) -> bool:
    """Return whether noise in these filters changes the outputs, or the network does not take it."""
    for seed in range(DRAWS):
        try:
            after = _outputs(network, example, filters, seed)
        except torch.OutOfMemoryError:
            raise
        except Exception:  # of the network's own code
            return True
        if len(after) != len(before) or any(
            one.shape != other.shape or not torch.allclose(one, other, rtol=1e-4, atol=1e-6, equal_nan=True)
            for one, other in zip(before, after, strict=True)
        ):
            return True
    return False


def _outputs(network: nn.Module, example: Inputs, filters: dict[str, Tensor], seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def noisy(chosen: Tensor) -> Callable[..., Tensor]:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
            axis, _ = axes_of(module, output)
            noise = torch.randn(output.shape, generator=generator).to(output)
            noise = noise * (_SPREAD * (output.float().abs().mean().to(output) + 1))
            where = chosen.to(output.device).view(-1, *[1] * (output.dim() - 1 - axis))
            return torch.where(where, output + noise, output)

        return hook

    device = network_device(network, example)
    with ExitStack() as stack, own_draws(device), evaluating(network):
        for name, chosen in filters.items():
            stack.callback(after_calls(network.get_submodule(name), noisy(chosen)).remove)
        return [tensor.clone() for tensor in tensors_in(call_on_copy(network, example))]
