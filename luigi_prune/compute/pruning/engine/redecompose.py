"""Decomposing a network as another one was decomposed: the step that rewinding needs.

Rewinding sets weights back to those of an early epoch. They are dense, so a decomposed layer's factors are those of its
early weight, at the rank, groups and folding that pruning has chosen for the later one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from luigi_prune.compute.duplicates import duplicate
from luigi_prune.compute.network_inputs import Inputs, copied, network_device, select
from luigi_prune.compute.precision import full_precision
from luigi_prune.compute.pruning.engine.arguments import ignored_names
from luigi_prune.compute.pruning.engine.decompose_network import combined_masks, factor_masks
from luigi_prune.compute.pruning.engine.named_parts import resolve_function
from luigi_prune.compute.pruning.engine.rules import PAPER
from luigi_prune.compute.pruning.low_rank.approximation_error import decomposition_error
from luigi_prune.compute.pruning.low_rank.candidates import SPECTRA, Candidates
from luigi_prune.compute.pruning.low_rank.decomposed import current_layers, replace_module, square, structure_of
from luigi_prune.compute.pruning.problem.equivalents import without_equivalents
from luigi_prune.compute.pruning.problem.layers import Layer
from luigi_prune.compute.pruning.problem.masks import Masks
from luigi_prune.compute.pruning.problem.records import Batches, Decomposition, Loss, Problem, Rules
from luigi_prune.compute.pruning.problem.weight_matrices import in_layers
from luigi_prune.compute.pruning.sizes_and_flops import count_outputs
from luigi_prune.errors import DamagedResult

if TYPE_CHECKING:
    from collections.abc import Iterable

    from luigi_prune.registry import MethodRow


def decompose_like(
    network: nn.Module,
    method: MethodRow,
    structure: list[dict[str, Any]],
    *,
    example_input: Inputs,
    calibration: Batches | None,
    loss: Loss | None,
    seed: int,
    rules: Rules = PAPER,
    ignore: Iterable[str] = (),
) -> tuple[nn.Module, Masks, list[dict[str, Any]]]:
    """Return a copy of `network`, which is not decomposed, with the layers of `structure` decomposed by `method`.

    And the masks of its factors' zeros, and its structure: the same choices, with the errors of these decompositions.
    The other arguments are those of `prune`. Raises DamagedResult if `structure` does not fit the network and method.
    """
    device = network_device(network, example_input)
    with full_precision(device), torch.inference_mode(False), torch.no_grad():
        network, _ = in_layers(duplicate(network))
        example = copied(select(example_input, slice(1)), device)
        batches = [(copied(x, device), copied(y, device)) for x, y in calibration or []]
        decomposed = {entry["layer"] for entry in structure}
        layers = [
            Layer(name, module, name, False, False) for name, module in current_layers(network) if name in decomposed
        ]
        kept = {layer.name: torch.tensor(layer.weight.numel()) for layer in layers}
        outputs, ignored = count_outputs(network, example), ignored_names(method, network, ignore)
        problem = Problem(network, layers, kept, outputs, example, batches, loss, seed, rules, ignored)
        scores = cast("list[Candidates]", resolve_function("score", method.score, SPECTRA)(problem))
        found = {layer.name: (layer, candidates) for layer, candidates in zip(layers, scores, strict=True)}
        replaced: dict[str, Masks] = {}
        for entry in structure:
            if entry["layer"] not in found:
                raise DamagedResult(f"layer {entry['layer']!r}", "the network has no such layer to decompose")
            layer, candidates = found[entry["layer"]]
            choice = _choice_of(entry, candidates)
            new = candidates.build(choice)
            if new.error is None and not candidates.of_outputs:
                new.error = decomposition_error(square(layer.module), choice, candidates.spectra)
            network = replace_module(network, layer.module, new)
            replaced[layer.name] = factor_masks(new, layer, {})
        network, masks = without_equivalents(network, combined_masks(network, {}, replaced))
        return network, masks, structure_of(network)


def _choice_of(entry: dict[str, Any], candidates: Candidates) -> Decomposition:
    """Return the choice of a structure's entry as one of `candidates`; MESSI's clusters are stored as one group."""
    rank, groups, folding = (int(entry[key]) for key in ("rank", "groups", "folding"))
    for spectrum in candidates.spectra:
        if (spectrum.folding, spectrum.groups) == (folding, groups):
            return Decomposition(rank, groups, folding)
    for spectrum in candidates.spectra:
        if groups == 1 and spectrum.folding == folding and rank % spectrum.groups == 0:
            return Decomposition(rank // spectrum.groups, spectrum.groups, folding)
    raise DamagedResult(f"layer {entry['layer']!r}", f"the method has no decomposition of {groups} groups for it")
