"""Granularity: what a unit of a layer is, which layers may lose units, and how a unit is cut."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from luigi_prune.compute.pruning.layers import Layer
from luigi_prune.compute.pruning.masks import Masks
from luigi_prune.compute.pruning.protocol import Selected
from luigi_prune.compute.zeros import keep_only


@dataclass(frozen=True)
class Granularity:
    """Units of a layer: which are alive under a mask of the weight, and how a choice of them reads as such a mask."""

    alive: Callable[[Tensor], Tensor]
    spread: Callable[[Tensor, Tensor], Tensor]
    fixed: Callable[[Layer], bool]
    structured: bool


def _columns(mask: Tensor) -> Tensor:
    return mask.transpose(0, 1).flatten(1).any(1)


def _over_rows(units: Tensor, mask: Tensor) -> Tensor:
    return units.view(-1, *[1] * (mask.dim() - 1))


def _over_columns(units: Tensor, mask: Tensor) -> Tensor:
    return units.view(1, -1, *[1] * (mask.dim() - 2))


GRANULARITIES: dict[str, Granularity] = {
    "weight": Granularity(lambda mask: mask, lambda units, mask: units, lambda layer: False, structured=False),
    "filter": Granularity(
        lambda mask: mask.flatten(1).any(1), _over_rows, lambda layer: layer.writes_output, structured=True
    ),
    "channel": Granularity(_columns, _over_columns, lambda layer: layer.reads_input, structured=True),
}


@torch.no_grad()
def cut(kind: str, layer: Layer, module: nn.Module, selected: Selected, masks: Masks, *, with_bias: bool) -> None:
    """Remove from `module`'s weight, and from `masks`, what `selected` leaves out, and re-weigh the rest.

    `module` stands where `layer.module` stands, in a copy of the network. `with_bias`: a filter takes its bias along.
    """
    unit = GRANULARITIES[kind]
    mask = masks[layer.weight_name]
    weight = module.weight
    assert isinstance(weight, Tensor)
    mask = mask & unit.spread(selected.kept, mask)
    if selected.factor is not None:
        weight.mul_(unit.spread(selected.factor, weight))
    keep_only(weight, mask)
    masks[layer.weight_name] = mask
    bias_name = layer.weight_name.removesuffix("weight") + "bias"
    if kind == "filter" and with_bias and bias_name in masks and isinstance(module.bias, Tensor):
        masks[bias_name] = masks[bias_name] & selected.kept
        keep_only(module.bias, masks[bias_name])
