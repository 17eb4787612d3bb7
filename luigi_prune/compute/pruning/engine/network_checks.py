"""Checks of a network: refusals before it is pruned, and lines about results that one may not expect."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parameter import is_lazy

from luigi_prune.compute.duplicates import duplicate
from luigi_prune.compute.pruning.low_rank.decomposed import Decomposed, current_layers
from luigi_prune.compute.pruning.problem.equivalents import has_own_forward
from luigi_prune.compute.pruning.problem.granularity import GRANULARITIES
from luigi_prune.compute.pruning.problem.layers import COUNTED, EMBEDDINGS, READERS, Layer, groups_of, takes
from luigi_prune.compute.pruning.problem.masks import Masks, kept_counts, kept_of, mostly_zero_weights
from luigi_prune.compute.pruning.problem.weight_matrices import weight_matrices
from luigi_prune.compute.pruning.sizes_and_flops import count_size
from luigi_prune.compute.zeros import counts_true, sums, to_numbers
from luigi_prune.errors import ConfigError

if TYPE_CHECKING:
    from luigi_prune.registry import MethodRow

MANY = 8  # units of a layer of which a single one left deserves a warning
SHOWN = 3  # names in a message
FOREIGN = ("torchao", "torch.distributed")  # modules whose tensors are quantised or spread over processes
REASON = 0.9  # the share of the parameters left that, if not pruned, explains a missed ratio
TOLERANCE = 0.005  # relative; a larger difference from the target keep ratio is a warning


def listed(names: Collection[str]) -> str:
    """Return names of modules or parameters for a message: the first few and how many there are."""
    shown = ", ".join(repr(name) if name else "the network" for name in list(names)[:SHOWN])
    return shown + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def check_kinds(method: str, network: nn.Module) -> None:
    """Raise ConfigError, naming the module or parameter, for a network whose weights are not plain numbers."""
    for name, module in network.named_modules():
        where = f"module {name!r}" if name else "the network"
        if isinstance(module, torch.jit.ScriptModule):
            raise ConfigError(f"{method}: {where} is TorchScript: prune the module that it was made from")
        if type(module).__module__.startswith(("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized")):
            raise ConfigError(
                f"{method}: {where}, a {type(module).__name__}, is quantised: prune the float network, then quantise it"
            )
        weight = module._parameters.get("weight") if isinstance(module, COUNTED) else None  # a computed one may change
        if isinstance(weight, Tensor) and not is_lazy(weight) and not weight.numel():
            raise ConfigError(
                f"{method}: {where}, a {type(module).__name__}, has a weight of shape {tuple(weight.shape)}, without "
                "entries: remove it from the network"
            )
    for name, value in (*network.named_parameters(), *network.named_buffers()):
        if is_lazy(value):
            raise ConfigError(f"{method}: {name!r} has no shape yet: run the network on a batch first")
        if value.is_meta:
            raise ConfigError(
                f"{method}: {name!r} is on the meta device and has no values: load the weights first "
                "(`load_state_dict(..., assign=True)`)"
            )
    for name, value in network.named_parameters():
        kind = type(value.data)
        if kind.__module__.startswith(FOREIGN) or value.layout != torch.strided:
            what = f"a {kind.__name__}" if value.layout == torch.strided else str(value.layout)
            raise ConfigError(f"{method}: parameter {name!r} is {what}, not a plain tensor: convert it first")


def check_finite(method: str, network: nn.Module) -> None:
    """Raise ConfigError for a parameter, or statistics of a normalisation, with NaN or infinite entries."""
    values: dict[str, Tensor] = dict(network.named_parameters())
    for name, module in network.named_modules():
        if isinstance(module, _NormBase):
            values |= {
                f"{name}.{key}".lstrip("."): value for key, value in module._buffers.items() if value is not None
            }
    values = {name: value.detach() for name, value in values.items() if value.is_floating_point()}
    if not values:
        return
    # A sum is several times as fast as a check of every entry, but it may overflow.
    finite = torch.isfinite(torch.stack(sums(list(values.values())))).tolist()
    for (name, value), is_finite in zip(values.items(), finite, strict=True):
        if not is_finite and (wrong := int(value.numel() - torch.isfinite(value).sum())):
            raise ConfigError(f"{method}: {name!r} has {wrong} NaN or infinite of {value.numel()} entries")


def peculiarities(network: nn.Module, masks: Masks | None) -> list[str]:
    """Return lines about layers that are not pruned, or not as one may expect."""
    lines = []
    if computed := computed_weights(network):
        lines.append(
            f"{listed(computed)}: not pruned, because the weight is computed from other parameters (weight_norm, "
            "spectral_norm or another parametrisation) or a buffer; make it a parameter first"
        )
    if untied := _on_one_memory(network):
        lines.append(
            f"{listed(untied)}: share their memory, but are no single parameter; in the result each has its own"
        )
    shares = mostly_zero_weights(network, masks)
    count = "they count as trainable parameters; api.prune(..., zeros='pruned') takes zeros as removed"
    if zero := [name for name, share in shares.items() if share == 1]:
        lines.append(f"{listed(zero)}: all entries are zero and not pruned, because no score ranks them; {count}")
    if partly := [name for name, share in shares.items() if share < 1]:
        lines.append(f"{listed(partly)}: half of the entries or more are zero and not removed by a mask; {count}")
    return lines


def _on_one_memory(network: nn.Module) -> list[str]:
    """Return the names of parameters that begin at the same address as another one."""
    names: dict[int, list[str]] = {}
    for name, value in network.named_parameters():
        if type(value) is nn.Parameter and value.layout == torch.strided and value.numel():
            names.setdefault(value.data_ptr(), []).append(name)
    return [name for group in names.values() if len(group) > 1 for name in group]


def without_zero_layers(layers: list[Layer], masks: Masks) -> list[Layer]:
    """Return the layers without those whose kept weights are all zero, unless they all are."""
    some = list(to_numbers(layer.weight.any() for layer in layers))
    kept = kept_of(masks[layer.weight_name] for layer in layers)
    others = [layer for layer, is_some, is_kept in zip(layers, some, kept, strict=True) if is_some or not is_kept]
    return others or layers


def narrowed(method: MethodRow, layers: list[Layer], before: Masks, after: Masks) -> list[str]:
    """Return a line that names the layers that have lost all units but one, because ignored layers keep theirs."""
    unit = GRANULARITIES[method.granularity]
    if not unit.structured:
        return []
    had, have = (
        list(counts_true(unit.alive(layer.by_unit(masks[layer.weight_name])) for layer in layers))
        for masks in (before, after)
    )
    lost = [layer.name for layer, many, few in zip(layers, had, have, strict=True) if few <= 1 and many >= MANY]
    if not lost:
        return []
    what = f"at most one {method.granularity} of {listed(lost)} is left"
    return [f"{method.name}: because the layers to ignore keep their size, {what}; ignore fewer or keep more"]


def recomputed(method: MethodRow, layers: list[Layer]) -> list[str]:
    """Return a line that names layers whose forward makes other numbers of zeros in the weight.

    Weight standardisation, for instance, subtracts a filter's mean. A filter of zeros stays one.
    """
    names = [layer.name for layer in layers if method.granularity != "filter" and _fills_zeros(layer.module)]
    if not names:
        return []
    why = "their forward computes other weights from the stored ones (weight standardisation?)"
    return [f"{method.name}: zeros in the weights of {listed(names)} remove no product, because {why}"]


def _fills_zeros(module: nn.Module) -> bool:
    """Return whether a convolution with a forward of its own reads a channel whose weights are all zero."""
    if not isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d) or not has_own_forward(module):
        return False
    if module.in_channels == groups_of(module):
        return False  # one channel in every group: its filters are zero
    copy = duplicate(module).eval()
    copy.get_parameter("weight").select(1, 0).zero_()
    size = [2 * dilation * kernel for dilation, kernel in zip(module.dilation, module.kernel_size, strict=True)]
    value = torch.ones(2, module.in_channels, *size, dtype=module.weight.dtype, device=module.weight.device)
    value[1, 0] = 2
    try:
        one, other = copy(value)
    except Exception:
        return False  # it takes other inputs
    return not torch.equal(one, other)


def computed_weights(network: nn.Module) -> list[str]:
    """Return the names of layers whose weight is no parameter of their own, which cannot be pruned."""
    return [
        name
        for name, module in network.named_modules()
        if isinstance(module, READERS) and not isinstance(module._parameters.get("weight"), nn.Parameter)
    ]


def missed_ratio(
    method: MethodRow,
    target: float,
    network: nn.Module,
    masks: Masks,
    original_size: int,
    ignored: Collection[str],
    start_size: int,
) -> str:
    """Return a line if the size of a pruned network is not the target, else an empty one: target, size and reason.

    `start_size`: before this step. Layers are named as the reason if almost all parameters that are left are in them.
    """
    size = count_size(network, masks)
    achieved = size / original_size
    if abs(achieved - target) <= TOLERANCE * target:
        return ""
    if size == start_size < original_size and achieved < target:
        return (
            f"{method.name}: keep ratio {target:.4g} is more than earlier steps have left; it stays at {achieved:.4g}"
        )
    line = f"{method.name}: keep ratio {target:.4g} cannot be met on this network; the closest is {achieved:.4g}"
    shares = _fixed_shares(method.granularity, network, masks, ignored)
    if achieved < target or sum(shares.values()) < REASON * size:
        return line
    largest = sorted(shares, key=shares.__getitem__, reverse=True)[:SHOWN]
    first, *others = [f"in {name}" for name in largest if name == largest[0] or 10 * shares[name] > size]
    parts = [f"{shares[largest[0]] / original_size:.0%} of the parameters are {first}"]
    parts += [f"{shares[name] / original_size:.0%} {where}" for name, where in zip(largest[1:], others, strict=False)]
    return f"{line}: {', '.join(parts)}, which is not pruned"


def _fixed_shares(granularity: str, network: nn.Module, masks: Masks, ignored: Collection[str]) -> dict[str, int]:
    """Return the number of kept parameters that methods of a granularity do not prune in every module, by description.

    Attention and other modules that are pruned as layers of an equivalent count as pruned.
    """
    layers = [module for name, module in current_layers(network) if name not in ignored]
    parts = [part for layer in layers for part in (layer if isinstance(layer, Decomposed) else [layer])]
    counted = {id(part.weight) for part in parts if takes(granularity, part)}
    for name, module, _ in weight_matrices(network):
        recurrent = isinstance(module, nn.RNNBase | nn.RNNCellBase)
        if not isinstance(module, COUNTED) and name not in ignored and (granularity == "weight" or not recurrent):
            counted |= {id(parameter) for parameter in module.parameters() if parameter.dim() > 1}
    shares: dict[str, int] = {}
    for name, module in network.named_modules():
        if isinstance(module, EMBEDDINGS) and f"{name}.weight" in masks:  # pruned on request
            counted.add(id(module.weight))
        own = [value for value in module._parameters.values() if value is not None and id(value) not in counted]
        counted |= {id(value) for value in own}
        if count := sum(kept_counts(network, masks, own)):
            name = name.partition(".parametrizations")[0]  # a part of the layer whose weight it computes
            owner = f"{type(network.get_submodule(name)).__name__} {name!r}" if name else "the network itself"
            shares[owner] = shares.get(owner, 0) + count
    return shares
