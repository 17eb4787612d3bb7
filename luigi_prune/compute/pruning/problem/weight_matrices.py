"""The weight matrices of a network as layers, whatever module holds them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial

from torch import Tensor, nn

from luigi_prune.compute.pruning.problem.equivalents import (
    Equivalent,
    equivalents_of,
    full_masks,
    parameters_by_layer,
    with_equivalents,
)
from luigi_prune.compute.pruning.problem.layers import allows, is_compressible
from luigi_prune.compute.pruning.problem.relaid_weights import RelaidLinear, UpConvolution
from luigi_prune.compute.pruning.problem.split_attention import SplitAttention
from luigi_prune.compute.pruning.problem.unrolled_recurrence import UnrolledRecurrence

EQUIVALENTS = (SplitAttention, UpConvolution, RelaidLinear, UnrolledRecurrence)


def in_layers(
    network: nn.Module, masks: Mapping[str, Tensor] | None = None
) -> tuple[nn.Module, dict[str, Tensor] | None]:
    """Return `network`, changed in place so that every weight matrix belongs to a layer, and its masks accordingly."""
    return with_equivalents(network, _kinds(network), masks)


def with_layers(network: nn.Module, names: Collection[str]) -> nn.Module:
    """Return `network`, changed in place so that the layers of these names exist, as far as `in_layers` makes them."""
    if not names:
        return network
    kinds = _kinds(network)
    prefixes = {name[:end] for name in names for end in range(len(name) + 1) if name[end : end + 1] in ("", ".")}
    some = {id(m): kinds[id(m)] for name, m in network.named_modules() if id(m) in kinds and name in prefixes | {""}}
    return with_equivalents(network, some)[0]


def needs_equivalents(network: nn.Module) -> bool:
    """Return whether `in_layers` would change `network`."""
    return bool(_kinds(network))


def _kinds(network: nn.Module) -> dict[int, type[Equivalent]]:
    return equivalents_of(network, EQUIVALENTS, partial(allows, network))


def weight_matrices(network: nn.Module) -> list[tuple[str, nn.Module, Tensor]]:
    """Return (name, module, weight) of every compressible layer in the order of `modules()`, tied weights once.

    Names and weights are those that the layers have after `in_layers`; the module is the one in `network`.
    """
    kinds, seen, inside = _kinds(network), set[int](), set[int]()
    matrices = []
    for name, module in network.named_modules():
        if id(module) in inside:
            continue
        kind = kinds.get(id(module))
        if kind is not None:
            inside.update(id(child) for child in module.modules())
            for key, value in parameters_by_layer(module, kind).items():
                if key.rpartition(".")[2] == "weight":
                    matrices.append((f"{name}.{key}".removesuffix("weight").strip("."), module, value))
        elif is_compressible(network, module) and id(module.weight) not in seen:
            seen.add(id(module.weight))
            matrices.append((name, module, module.get_parameter("weight")))
    return matrices


def layer_masks(network: nn.Module, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return, by layer name (see `weight_matrices`), the mask of each weight that has pruned entries.

    `masks`: by parameter name of `network`.
    """
    found: dict[str, Tensor] = {}
    if not masks:
        return found
    kinds = _kinds(network)
    for name, module in network.named_modules():
        prefix, kind = f"{name}." if name else "", kinds.get(id(module))
        own = module._parameters if kind is None else dict(module.named_parameters())
        given = {key: masks[prefix + key] for key in own if prefix + key in masks}
        if kind is not None and given:
            given = kind.split(module, full_masks(given, {key: value.shape for key, value in own.items()}))
        found.update((f"{prefix}{key}".removesuffix("weight").strip("."), mask)
                     for key, mask in given.items() if key.rpartition(".")[2] == "weight")  # fmt: skip
    return found
