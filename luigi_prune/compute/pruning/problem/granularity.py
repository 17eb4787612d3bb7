"""Granularity: the unit that is pruned (weight, filter or channel), the layers whose units are fixed, and the cut."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from luigi_prune.compute.pruning.problem.layers import Layer
from luigi_prune.compute.pruning.problem.masks import Masks
from luigi_prune.compute.pruning.problem.records import Problem, Selected
from luigi_prune.compute.zeros import keep_only


@dataclass(frozen=True)
class Granularity:
    """The units of a layer: `alive` of them under a mask of the weight, and `spread`, a choice of them as such a mask.

    `fixed`: whether the layer's units are inputs or outputs of the network, which allocations usually keep.
    `structured`: whether a unit is a whole filter or channel.
    """

    alive: Callable[[Tensor], Tensor]
    spread: Callable[[Tensor, Tensor], Tensor]
    fixed: Callable[[Layer], bool]
    structured: bool


def _alive_channels(mask: Tensor) -> Tensor:
    return mask.transpose(0, 1).flatten(1).any(1)


def _as_rows(units: Tensor, mask: Tensor) -> Tensor:
    return units.view(-1, *[1] * (mask.dim() - 1))


def _as_columns(units: Tensor, mask: Tensor) -> Tensor:
    return units.view(1, -1, *[1] * (mask.dim() - 2))


GRANULARITIES: dict[str, Granularity] = {
    "weight": Granularity(lambda mask: mask, lambda units, mask: units, lambda layer: False, structured=False),
    "filter": Granularity(
        lambda mask: mask.flatten(1).any(1), _as_rows, lambda layer: layer.writes_output, structured=True
    ),
    "channel": Granularity(_alive_channels, _as_columns, lambda layer: layer.reads_input, structured=True),
}


def is_protected(kind: str, layer: Layer, problem: Problem) -> bool:
    """Return whether no allocation may prune units of `layer` under the rules.

    Outputs of the network and planes of an image are protected; features of a vector are not: a linear layer that reads
    one vector per sample can do without some of its entries.
    """
    if not (problem.rules.protects_ends and GRANULARITIES[kind].fixed(layer)):
        return False
    reads_vector = isinstance(layer.module, nn.Linear) and problem.outputs.get(layer.name) == layer.weight.shape[0]
    return not (kind == "channel" and reads_vector)


@torch.no_grad()
def cut(kind: str, layer: Layer, module: nn.Module, selected: Selected, masks: Masks, *, with_bias: bool) -> None:
    """Prune the units that are not `selected` from `module`'s weight and from `masks`, and re-weight the others.

    `module` is `layer.module` in a copy of the network. `with_bias`: the bias of a pruned filter is pruned with it.
    """
    unit = GRANULARITIES[kind]
    mask = layer.by_unit(masks[layer.weight_name])
    weight = module.weight
    assert isinstance(weight, Tensor)
    mask = layer.by_entry(mask & unit.spread(selected.kept, mask))
    if selected.factor is not None:
        by_unit = layer.by_unit(weight)
        weight.copy_(layer.by_entry(by_unit * unit.spread(selected.factor, by_unit)))
    keep_only(weight, mask)
    masks[layer.weight_name] = mask
    bias_name = layer.weight_name.removesuffix("weight") + "bias"
    if kind == "filter" and with_bias and bias_name in masks and isinstance(module.bias, Tensor):
        masks[bias_name] = masks[bias_name] & selected.kept.repeat_interleave(len(module.bias) // len(selected.kept))
        keep_only(module.bias, masks[bias_name])
