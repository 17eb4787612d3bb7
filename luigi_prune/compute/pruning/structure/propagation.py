"""Propagation: pruning the entries that a cut has made useless, but none that could still change an output."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from luigi_prune.compute.masked import apply_masks
from luigi_prune.compute.network_inputs import Inputs
from luigi_prune.compute.pruning.problem.masks import Masks
from luigi_prune.compute.pruning.structure.channel_hooks import Structure, is_norm, is_reader
from luigi_prune.compute.pruning.structure.constants import fold_constants
from luigi_prune.compute.pruning.structure.structure_probe import StructureProbe


def propagate(
    network: nn.Module,
    masks: Masks,
    probe: StructureProbe,
    example_input: Inputs,
    *,
    structured: bool,
    protected: frozenset[str] = frozenset(),
) -> Structure:
    """Prune from `network` and `masks`, in place, every entry that can no longer change the output.

    These are: weights that read a channel which is always zero; weights, biases and affine parameters of a channel that
    the output does not depend on; and channels that have become constant, if their readers can absorb the constant
    exactly. `structured` (filters, channels): a BatchNorm channel that reads only pruned filters is pruned with them.
    Parameters named in `protected` do not change.
    """
    while True:
        structure = probe.observe(masks, silence=structured)
        silence(network, masks, structure)
        if not probe.can_see_constants:
            break
        if not fold_constants(network, masks, structure, probe.normalised_by, example_input, protected):
            break
    _remove_unreachable(network, masks, structure, protected)
    apply_masks(network, masks)
    return structure


@torch.no_grad()
def silence(network: nn.Module, masks: Masks, structure: Structure) -> None:
    """Prune the BatchNorm channels that read only zeros according to `structure`: scale, shift and running mean."""
    modules = dict(network.named_modules())
    for name, silenced in structure.silenced.items():
        module = modules[name]
        for key in ("weight", "bias"):
            if isinstance(parameter := getattr(module, key), Tensor):
                masks[f"{name}.{key}"] = masks[f"{name}.{key}"] & ~silenced
                parameter.masked_fill_(silenced, 0)
        if isinstance(module.running_mean, Tensor):
            module.running_mean.masked_fill_(silenced, 0)


@torch.no_grad()
def _remove_unreachable(network: nn.Module, masks: Masks, structure: Structure, protected: frozenset[str]) -> None:
    """Prune from `masks` all entries between channels that are zero or that no output depends on."""
    kept: dict[str, Tensor] = {}
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    untouchable = set(protected)
    for module_name, module in network.named_modules():
        known = (is_reader(module) or is_norm(module)) and module_name in structure.reaching
        for key, parameter in module._parameters.items():
            if parameter is None:
                continue
            name = names[id(parameter)]
            if not known or key not in ("weight", "bias"):
                untouchable.add(name)  # of an unknown kind, or never called: its effect is not known
                continue
            useful = structure.reaching[module_name]
            if key == "weight" and is_reader(module):
                useful = structure.linked[module_name]
            useful = useful.view(*useful.shape, *[1] * (parameter.dim() - useful.dim())).expand_as(parameter)
            kept[name] = kept[name] | useful if name in kept else useful
        if known and isinstance(module, _BatchNorm) and isinstance(module.running_mean, Tensor):
            module.running_mean.masked_fill_(~structure.reaching[module_name], 0)
    for name, useful in kept.items():
        if name not in untouchable:
            masks[name] = masks[name] & useful.to(masks[name].device)
