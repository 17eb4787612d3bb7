"""Pruning by rank: every layer whose factors are cheaper is replaced by them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from luigi_prune.compute.masked import apply_masks
from luigi_prune.compute.pruning.engine.budget_search import CLOSE_ENOUGH, find_level
from luigi_prune.compute.pruning.engine.named_parts import resolve_function
from luigi_prune.compute.pruning.low_rank.approximation_error import decomposition_error
from luigi_prune.compute.pruning.low_rank.candidates import SPECTRA, Candidates
from luigi_prune.compute.pruning.low_rank.decomposed import (
    Decomposed,
    current_layers,
    recompose_layer,
    square,
)
from luigi_prune.compute.pruning.low_rank.rank_levels import RANK_ALLOCATIONS, RankLevels, choose_measured
from luigi_prune.compute.pruning.problem.equivalents import has_hooks, has_own_forward
from luigi_prune.compute.pruning.problem.layers import Layer, left_alone, of_reference, takes
from luigi_prune.compute.pruning.problem.masks import Masks, initial_masks, removals
from luigi_prune.compute.pruning.problem.module_references import held_elsewhere, replace_module
from luigi_prune.compute.pruning.problem.records import Batches, Choice, Decomposition, Levels, Loss, Problem, Rules
from luigi_prune.compute.pruning.sizes_and_flops import count_size, layer_budgets
from luigi_prune.compute.zeros import count_nonzero
from luigi_prune.errors import ConfigError

if TYPE_CHECKING:
    from luigi_prune.registry import MethodRow

OWN_FORWARD = (
    "two factors cannot stand for (a forward of their own, forward hooks, or a second reference from the network)"
)


@torch.no_grad()
def decompose_network(
    network: nn.Module,
    method: MethodRow,
    target_size: int,
    *,
    example: Tensor,
    outputs: dict[str, int],
    batches: Batches,
    loss: Loss | None,
    seed: int,
    rules: Rules,
    masks: Masks | None,
    warnings: list[str],
    ignored: frozenset[str] = frozenset(),
) -> tuple[nn.Module, Masks]:
    """Return `network`, changed in place, at the size nearest to `target_size` that the method's levels offer.

    And the masks of its pruned entries: `masks` as far as they still apply, and the zeros of the factors. Decomposed
    layers are recomposed and decomposed again, or left unchanged. `outputs`: the result of `count_outputs`.
    `ignored`: names of layers that stay unchanged. Lines about others that do are added to `warnings`.
    """
    masks = initial_masks(network, masks) if masks else {}
    apply_masks(network, masks)
    current = [(name, module) for name, module in current_layers(network) if _is_replaceable(module, rules)]
    if not current:
        raise ConfigError(f"{method.name}: the network has no compressible layer ({method.layers})")
    elsewhere = held_elsewhere(network)
    special = {
        name: module
        for name, module in current
        if (_is_special(module) or id(module) in elsewhere) and name not in ignored
    }
    if special:
        ignored |= special.keys()
        warnings.append(left_alone(method.name, special, OWN_FORWARD))
    layers = [
        Layer(name, recompose_layer(module) if isinstance(module, Decomposed) else module, name, False, False)
        for name, module in current
    ]
    budgets = {budget.name: budget for budget in layer_budgets(network)}
    kept = {name: torch.tensor(budgets[name].kept) for name, _ in current}
    problem = Problem(network, layers, kept, _outputs(current, outputs), example, batches, loss, seed, rules, ignored)
    scores = cast("list[Candidates]", resolve_function("score", method.score, SPECTRA)(problem))
    levels = resolve_function("allocation", method.allocation, RANK_ALLOCATIONS)(problem, scores, method.granularity)
    fixed_size = count_size(network) - sum(candidates.kept for candidates in scores)

    @cache
    def factors(index: int, choice: Decomposition) -> Decomposed:
        new, before = scores[index].build(choice), current[index][1]
        # A fresh network's layer does not have a bias that an earlier step added.
        new.adds_bias |= isinstance(before, Decomposed) and before.adds_bias
        return new

    @cache
    def size_at(index: int, choice: Decomposition) -> int:
        return count_size(factors(index, choice)) - _bias_size(layers[index].module)

    def size_of(choices: list[Choice]) -> int:
        return fixed_size + sum(
            size_at(index, choice) if isinstance(choice, Decomposition) else scores[index].kept
            for index, choice in enumerate(choices)
        )

    replaced = []
    for index, choice in enumerate(_choose(levels, size_of, fixed_size, target_size)):
        if isinstance(choice, Decomposition):
            name, old = current[index]
            new = factors(index, choice)
            if new.error is None and not scores[index].of_outputs:
                new.error = decomposition_error(square(layers[index].module), choice, scores[index].spectra)
            network = replace_module(network, old, new)
            replaced.append(name)
    return network, _masks(network, masks, replaced)


def _is_replaceable(module: nn.Module, rules: Rules) -> bool:
    """Return whether the method takes `module`, a compressible or decomposed layer."""
    return isinstance(module, Decomposed) or (
        takes("rank", module) and (rules.takes_every_kind or of_reference(module))
    )


def _is_special(module: nn.Module) -> bool:
    return not isinstance(module, Decomposed) and (has_own_forward(module) or has_hooks(module))


def _choose(levels: Levels, size_of: Callable[[list[Choice]], int], fixed_size: int, target_size: int) -> list[Choice]:
    """Return the choices whose size is nearest to `target_size`; no choice changes `fixed_size` parameters of it."""

    def search(levels: Levels) -> list[Choice]:
        level = find_level(
            levels.count, lambda at: levels.cost(at) + fixed_size, lambda at: size_of(levels.choose(at)), target_size
        )
        choices = levels.choose(level)
        if isinstance(levels, RankLevels) and abs(size_of(choices) - target_size) > CLOSE_ENOUGH * target_size:
            finer = levels.fill(target_size - fixed_size)
            choices = min(choices, finer, key=lambda each: abs(size_of(each) - target_size))
        return choices

    if isinstance(levels, RankLevels):
        # first without building factors
        levels, _ = choose_measured(levels, lambda now: now.fill(target_size - fixed_size))
    return choose_measured(levels, search)[1]


def undecomposed(network: nn.Module, method: str) -> nn.Module:
    """Return `network`; raise ConfigError if layers of it are decomposed: it is not the original one."""
    if any(isinstance(module, Decomposed) for module in network.modules()):
        raise ConfigError(f"{method} starts from the original network at every step, but got a decomposed one")
    return network


def _outputs(current: list[tuple[str, nn.Module]], counted: dict[str, int]) -> dict[str, int]:
    """Return how many numbers each layer computes for one sample; for a decomposed layer, those of its decoding."""
    names = {name: f"{name}.decode".lstrip(".") if isinstance(m, Decomposed) else name for name, m in current}
    return {name: counted[source] for name, source in names.items()}


def _bias_size(layer: nn.Module) -> int:
    return count_nonzero(layer.bias) if isinstance(layer.bias, Tensor) else 0


def _masks(network: nn.Module, masks: Masks, replaced: list[str]) -> Masks:
    """Return the masks of the new network: `masks` except for replaced layers, and the zeros of factors."""
    shapes = {name: parameter.shape for name, parameter in network.named_parameters()}
    prefixes = tuple(f"{name}." if name else "" for name in replaced)
    kept = {
        name: mask
        for name, mask in removals(masks).items()
        if name in shapes and mask.shape == shapes[name] and not name.startswith(prefixes)
    }
    return removals(initial_masks(network, kept))
