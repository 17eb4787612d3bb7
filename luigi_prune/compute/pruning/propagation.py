"""Propagation: what a cut has made useless goes, too, but nothing that could still change an output."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from luigi_prune.compute.masked import apply_masks
from luigi_prune.compute.pruning.constants import fold_constants
from luigi_prune.compute.pruning.masks import Masks
from luigi_prune.compute.pruning.probe import StructureProbe
from luigi_prune.compute.pruning.taps import Structure, is_norm, is_reader


def propagate(
    network: nn.Module,
    masks: Masks,
    probe: StructureProbe,
    example_input: Tensor,
    *,
    structured: bool,
    protected: frozenset[str] = frozenset(),
) -> Structure:
    """Remove from `network` and `masks`, in place, every entry that cannot change the output any more.

    That is: weights that read a channel which is always zero; weights, biases and affine parameters of a channel that
    the output does not depend on; and channels that have become constant, where what reads them can take the constant
    exactly. `structured` (filters, channels): a BatchNorm channel that reads nothing but what was cut is cut with it.
    Parameters called `protected` stay as they are.
    """
    while True:
        found = probe.observe(masks, silence=structured)
        silence(network, masks, found)
        if not probe.can_see_constants:
            break
        if not fold_constants(network, masks, found, probe.normalised_by, example_input, protected):
            break
    _remove_unreachable(network, masks, found, protected)
    apply_masks(network, masks)
    return found


@torch.no_grad()
def silence(network: nn.Module, masks: Masks, found: Structure) -> None:
    """Cut the BatchNorm channels that the probe found to read only zeros: scale, shift and running mean."""
    modules = dict(network.named_modules())
    for name, gone in found.silenced.items():
        module = modules[name]
        for key in ("weight", "bias"):
            if isinstance(parameter := getattr(module, key), Tensor):
                masks[f"{name}.{key}"] = masks[f"{name}.{key}"] & ~gone
                parameter.masked_fill_(gone, 0)
        if isinstance(module.running_mean, Tensor):
            module.running_mean.masked_fill_(gone, 0)


@torch.no_grad()
def _remove_unreachable(network: nn.Module, masks: Masks, found: Structure, protected: frozenset[str]) -> None:
    """Take out of `masks` all entries between channels that are zero or that no output depends on."""
    kept: dict[str, Tensor] = {}
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    untouchable = set(protected)
    for module_name, module in network.named_modules():
        known = (is_reader(module) or is_norm(module)) and module_name in found.reaching
        for key, parameter in module._parameters.items():
            if parameter is None:
                continue
            name = names[id(parameter)]
            if not known or key not in ("weight", "bias"):
                untouchable.add(name)  # of an unknown kind, or never called: nothing can be said
                continue
            useful = found.reaching[module_name]
            if key == "weight" and is_reader(module):
                useful = found.linked[module_name]
            useful = useful.view(*useful.shape, *[1] * (parameter.dim() - useful.dim())).expand_as(parameter)
            kept[name] = kept[name] | useful if name in kept else useful
        if known and isinstance(module, _BatchNorm) and isinstance(module.running_mean, Tensor):
            module.running_mean.masked_fill_(~found.reaching[module_name], 0)
    for name, useful in kept.items():
        if name not in untouchable:
            masks[name] = masks[name] & useful.to(masks[name].device)
