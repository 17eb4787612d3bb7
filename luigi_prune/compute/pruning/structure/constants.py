"""Moving channels that have become constant into the biases and running means of the layers that read them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from luigi_prune.compute.network_inputs import Inputs, call, first_and_last
from luigi_prune.compute.pruning.problem.call_hooks import before_calls
from luigi_prune.compute.pruning.problem.equivalents import has_own_forward
from luigi_prune.compute.pruning.problem.layers import evaluating
from luigi_prune.compute.pruning.problem.masks import Masks
from luigi_prune.compute.pruning.problem.relaid_weights import UpConvolution
from luigi_prune.compute.pruning.structure.channel_hooks import Structure, channels_last, is_reader, spread_columns
from luigi_prune.compute.zeros import any_true, keep_only, to_numbers

SAME = 1e-5  # relative spread below which the network's activations are equal except for rounding
Constants = dict[str, tuple[Tensor, Tensor]]  # module -> (which input channels are constant, their values)


def measure_constants(network: nn.Module, names: list[str], example_input: Inputs) -> Constants:
    """Return for each named module which input channels have one value in all calls, and that value.

    The first and the last sample are enough, data and noise: the channels to look at are constant in every probe.
    """
    smallest: dict[str, Tensor] = {}
    largest: dict[str, Tensor] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            rows = channels_last(module, inputs[0])
            low, high = rows.amin(0), rows.amax(0)
            smallest[name] = torch.minimum(smallest.get(name, low), low)
            largest[name] = torch.maximum(largest.get(name, high), high)

        return hook

    modules = dict(network.named_modules())
    with ExitStack() as stack, torch.no_grad(), evaluating(network):
        for name in names:
            stack.callback(before_calls(modules[name], note(name)).remove)
        call(network, first_and_last(example_input))
    return {
        name: (largest[name] - low <= SAME * torch.maximum(low.abs(), largest[name].abs()), low)
        for name, low in smallest.items()
    }


@torch.no_grad()
def fold_constants(
    network: nn.Module,
    masks: Masks,
    structure: Structure,
    normalised_by: dict[str, str],
    example_input: Inputs,
    protected: frozenset[str] = frozenset(),
) -> bool:
    """Prune the columns that read constant channels, if that is exact; return whether any was pruned.

    `structure` holds the channels that are constant for every input; their values come from `example_input`. A constant
    zero needs nothing else. Other constants move into the reader's bias, or into the running mean of the BatchNorm that
    is the only reader of its output, unless zero padding makes the contribution depend on the position. A BatchNorm
    channel with a constant input keeps its output as its shift; its scale is pruned. Parameters named in `protected`
    do not change.
    """
    modules = dict(network.named_modules())
    constants = _worth_folding(modules, masks, structure)
    if not constants:
        return False
    owners = _owner_counts(network)
    possible: dict[str, Tensor] = {}
    for name in constants:
        module, constant = modules[name], structure.constant_inputs[name]
        if owners[id(module.weight)] != 1 or owners[id(module.bias)] > 1:
            continue  # parameters shared with other modules cannot be changed for this one
        weight_name = f"{name}.weight" if name else "weight"
        if weight_name in protected:
            continue
        mask = masks[weight_name]
        if is_reader(module):  # channels that are always zero need no folding
            useful = constant & ~structure.zero_inputs[name]
            useful = useful & (_matrix(mask) & spread_columns(module, useful)).any()
        else:
            useful = constant & mask if isinstance(module, _BatchNorm) else constant & False
        possible[name] = useful
    some = to_numbers(useful.any() for useful in possible.values())
    candidates = {name: useful for (name, useful), is_useful in zip(possible.items(), some, strict=True) if is_useful}
    if not candidates:
        return False
    changed = False
    for name, (measured, value) in measure_constants(network, list(candidates), example_input).items():
        module, constant = modules[name], candidates[name] & measured
        if is_reader(module):
            norm = modules.get(normalised_by.get(name, ""))
            changed |= _fold_reader(name, module, norm, masks, constant, value)
        elif isinstance(module, _BatchNorm):
            changed |= _fold_norm(name, module, masks, constant, value)
    return changed


def _worth_folding(modules: dict[str, nn.Module], masks: Masks, structure: Structure) -> list[str]:
    """Return the names of the modules with constant inputs that may be folded; those of most modules are all zero."""
    useless: dict[str, Tensor] = {}
    for name in structure.constant_inputs:
        if is_reader(modules[name]):
            useless[name] = structure.zero_inputs[name]
        elif isinstance(modules[name], _BatchNorm):
            mask = masks.get(f"{name}.weight" if name else "weight")
            if mask is not None:  # its own
                useless[name] = ~mask
    if not useless:
        return []
    constant = torch.cat([structure.constant_inputs[name] for name in useless])
    useful = (constant & ~torch.cat(list(useless.values()))).split([len(each) for each in useless.values()])
    return [name for name, is_useful in zip(useless, any_true(list(useful)), strict=True) if is_useful]


def _owner_counts(network: nn.Module) -> dict[int, int]:
    """Return how many modules use each parameter, by id; None, a missing parameter, is used by none."""
    counts: dict[int, int] = {id(None): 0}
    for module in network.modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                counts[id(parameter)] = counts.get(id(parameter), 0) + 1
    return counts


def _matrix(mask: Tensor) -> Tensor:
    """Return which (filter, channel) pairs of a weight's mask keep anything."""
    return mask.flatten(2).any(2) if mask.dim() > 2 else mask


def _depends_on_position(module: nn.Module) -> bool:
    """Return whether the contribution of a constant channel may differ between positions, or is not known."""
    if has_own_forward(module) or isinstance(module, UpConvolution):
        return True
    if isinstance(module, nn.Linear) or getattr(module, "padding_mode", "zeros") != "zeros":
        return False
    padding = getattr(module, "padding", 0)
    if isinstance(padding, str):
        return padding == "same" and any(size > 1 for size in getattr(module, "kernel_size", ()))
    return any(padding) if isinstance(padding, tuple) else bool(padding)


def _fold_reader(
    name: str, module: nn.Module, norm: nn.Module | None, masks: Masks, constant: Tensor, value: Tensor
) -> bool:
    weight, key = module.weight, f"{name}.weight" if name else "weight"
    assert isinstance(weight, Tensor)
    pruned = spread_columns(module, constant) & _matrix(masks[key])
    moved = pruned & spread_columns(module, value != 0)
    bias = module.bias
    if bool(moved.any()):
        allowed = _absorbing_filters(name, module, norm, masks, moved)
        blocked = moved & ~allowed[:, None]
        if getattr(module, "groups", 1) == 1:
            # A channel is removed from all filters or from none, so that its source can be pruned.
            blocked = blocked.any(0)[None]
        pruned, moved = pruned & ~blocked, moved & ~blocked
        sums = weight.flatten(2).sum(2) if weight.dim() > 2 else weight
        shift = (sums.double() * moved * spread_columns(module, value.double())).sum(1).to(weight.dtype)
        if isinstance(bias, Tensor):
            bias.add_(shift)
        elif isinstance(norm, _BatchNorm) and isinstance(norm.running_mean, Tensor):
            norm.running_mean.sub_(shift)
    masks[key] = masks[key] & ~pruned.view(*pruned.shape, *[1] * (weight.dim() - 2))
    keep_only(weight, masks[key])
    return bool(pruned.any())


def _absorbing_filters(name: str, module: nn.Module, norm: nn.Module | None, masks: Masks, moved: Tensor) -> Tensor:
    """Return which filters can absorb a constant, bool of shape (filters,)."""
    rows = torch.zeros(moved.shape[0], dtype=torch.bool, device=moved.device)
    if _depends_on_position(module):
        return rows
    if isinstance(module.bias, Tensor):
        return masks[f"{name}.bias" if name else "bias"]
    if isinstance(norm, _BatchNorm) and isinstance(norm.running_mean, Tensor):
        return ~rows
    return rows


def _fold_norm(name: str, module: _BatchNorm, masks: Masks, constant: Tensor, value: Tensor) -> bool:
    mean, variance = module.running_mean, module.running_var
    if not isinstance(mean, Tensor) or not isinstance(variance, Tensor) or module.bias is None:
        return False
    scale_mask, shift_mask = masks[f"{name}.weight"], masks[f"{name}.bias"]
    slope = module.weight.double() / torch.sqrt(variance.double() + module.eps)
    output = (value.double() - mean.double()) * slope + module.bias.double()
    pruned = constant & scale_mask & shift_mask
    module.bias.copy_(torch.where(pruned, output.to(module.bias.dtype), module.bias))
    masks[f"{name}.weight"] = scale_mask & ~pruned
    module.weight.masked_fill_(pruned, 0)
    return bool(pruned.any())
