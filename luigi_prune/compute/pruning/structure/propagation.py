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
from luigi_prune.compute.zeros import both, keep_vectors


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
    before = dict(masks)
    while True:
        structure = probe.observe(masks, silence=structured)
        silence(network, masks, structure)
        if not probe.can_see_constants:
            break
        if not fold_constants(network, masks, structure, probe.normalised_by, example_input, protected):
            break
    _remove_unreachable(network, masks, structure, protected)
    _apply_changed(network, masks, before)
    return structure


def _apply_changed(network: nn.Module, masks: Masks, before: Masks) -> None:
    """Set to zero what masks other than those `before` remove; those have been applied."""
    parameters = dict(network.named_parameters())
    changed = {name: mask for name, mask in masks.items() if mask is not before[name]}
    vectors = {name: mask for name, mask in changed.items() if mask.dim() == 1 and name in parameters}
    keep_vectors([parameters[name] for name in vectors], list(vectors.values()))
    apply_masks(network, {name: mask for name, mask in changed.items() if name not in vectors})


@torch.no_grad()
def silence(network: nn.Module, masks: Masks, structure: Structure) -> None:
    """Prune the BatchNorm channels that read only zeros according to `structure`: scale, shift and running mean."""
    if not structure.silenced:
        return
    modules = dict(network.named_modules())
    sizes = [len(silenced) for silenced in structure.silenced.values()]
    sounding = dict(zip(structure.silenced, (~torch.cat(list(structure.silenced.values()))).split(sizes), strict=True))
    values: list[Tensor] = []
    kept: list[Tensor] = []
    pruned: list[str] = []
    for name, sounds in sounding.items():
        for key in ("weight", "bias", "running_mean"):
            if isinstance(value := getattr(modules[name], key), Tensor):
                values.append(value)
                kept.append(sounds)
                if key != "running_mean":
                    pruned.append(f"{name}.{key}")
    of_masks = [sounding[key.rpartition(".")[0]] for key in pruned]
    masks.update(zip(pruned, both([masks[key] for key in pruned], of_masks), strict=True))
    keep_vectors(values, kept)


@torch.no_grad()
def _remove_unreachable(network: nn.Module, masks: Masks, structure: Structure, protected: frozenset[str]) -> None:
    """Prune from `masks` all entries between channels that are zero or that no output depends on."""
    kept: dict[str, Tensor] = {}
    means: list[tuple[Tensor, Tensor]] = []
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
            means.append((module.running_mean, structure.reaching[module_name]))
    keep_vectors([mean for mean, _ in means], [reaches for _, reaches in means])
    vectors: dict[str, Tensor] = {}
    for name, useful in kept.items():
        if name in untouchable:
            continue
        useful = useful.to(masks[name].device)
        if useful.dim() == 1:
            vectors[name] = useful
        else:
            masks[name] = masks[name] & useful
    masks.update(zip(vectors, both([masks[name] for name in vectors], list(vectors.values())), strict=True))
