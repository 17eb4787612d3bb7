"""The network inside wrappers and reparametrisations: what `api.prune` prunes of the network that it is given."""

from __future__ import annotations

from torch import nn
from torch.nn.utils import prune as torch_prune

from luigi_prune.api.mask_hooks import held_masks, release
from luigi_prune.compute.duplicates import without_wrappers, wrapper_of
from luigi_prune.compute.pruning.engine.network_checks import listed
from luigi_prune.compute.pruning.problem.masks import Masks, joined_masks


def plain(network: nn.Module) -> tuple[nn.Module, Masks, list[str]]:
    """Return an equal network of plain modules, the masks that the given one carries, and lines about the difference.

    Compiled and parallel modules are unwrapped. Masks of an earlier result and of `torch.nn.utils.prune` become plain
    ones. The given network does not change; it is returned itself if there is nothing to do.
    """
    wrappers = {name: kind for name, module in network.named_modules() if (kind := wrapper_of(module))}
    hooked = [name for name, module in network.named_modules() if _pruned_tensors(module)]
    if not wrappers and not hooked and not held_masks(network):
        return network, {}, []
    copied = without_wrappers(network)
    masks = held_masks(copied)
    lines = []
    if wrappers:
        kinds = " and ".join(sorted(set(wrappers.values())))
        lines.append(f"{listed(wrappers)}: pruned without {kinds}, which the result does not have; wrap it again")
    taken = _take_masks(release(copied))
    if taken:
        lines.append(
            f"{listed(hooked)}: the masks of torch.nn.utils.prune are kept by the result itself, whose state dict has "
            "plain names (`weight`, not `weight_orig` and `weight_mask`)"
        )
    return copied, joined_masks(masks, taken), lines


def unwrapped(network: nn.Module) -> nn.Module:
    """Return a copy of `network` without wrappers and without masks: a plain architecture to load a result into."""
    copied = release(without_wrappers(network))
    _take_masks(copied)
    return copied


def _pruned_tensors(module: nn.Module) -> list[str]:
    """Return the names of the tensors of `module` that `torch.nn.utils.prune` masks."""
    hooks = module._forward_pre_hooks.values()
    return [hook._tensor_name for hook in hooks if isinstance(hook, torch_prune.BasePruningMethod)]


def _take_masks(network: nn.Module) -> Masks:
    """Make plain parameters, in place, of those that `torch.nn.utils.prune` masks; return the masks."""
    masks: Masks = {}
    for module_name, module in network.named_modules():
        for name in _pruned_tensors(module):
            full_name = f"{module_name}.{name}".lstrip(".")
            masks[full_name] = module.get_buffer(f"{name}_mask").bool().clone()
            torch_prune.remove(module, name)
    return masks
