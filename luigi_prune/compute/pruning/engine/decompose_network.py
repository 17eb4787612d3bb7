"""Pruning by rank: every layer whose factors are cheaper is replaced by them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from luigi_prune.compute.masked import apply_masks
from luigi_prune.compute.pruning.engine.budget_search import CLOSE_ENOUGH, find_level, level_at_budget
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
from luigi_prune.compute.pruning.problem.module_references import held_elsewhere, replace_modules
from luigi_prune.compute.pruning.problem.records import Choice, Decomposition, Levels, Problem, Rules
from luigi_prune.compute.pruning.sizes_and_flops import count_size, layer_budgets
from luigi_prune.compute.zeros import count_true, nonzero
from luigi_prune.errors import ConfigError

if TYPE_CHECKING:
    from luigi_prune.registry import MethodRow

OWN_FORWARD = (
    "two factors cannot stand for (a forward of their own, forward hooks, or a second reference from the network)"
)


@torch.no_grad()
def decompose_network(problem: Problem, method: MethodRow, target_size: int) -> tuple[nn.Module, Masks]:
    """Return the problem's network, changed in place, at the size nearest to `target_size` that the levels offer.

    And the masks of its pruned entries: the problem's as far as they still apply, and the zeros of the factors.
    Decomposed layers are recomposed and decomposed again, or left unchanged. The problem's layers are not read: all
    that can be replaced are, but for `ignored` ones. Lines about others that stay are added to `warnings`.
    """
    network, rules, ignored = problem.network, problem.rules, problem.ignored
    masks = initial_masks(network, problem.masks) if problem.masks else {}
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
        problem.warnings.append(left_alone(method.name, special, OWN_FORWARD))
    layers = [
        Layer(name, recompose_layer(module) if isinstance(module, Decomposed) else module, name, False, False)
        for name, module in current
    ]
    budgets = {budget.name: budget for budget in layer_budgets(network, masks)}
    kept = {name: torch.tensor(budgets[name].kept) for name, _ in current}
    outputs = _outputs(current, problem.outputs)
    problem = replace(problem, layers=layers, masks=kept, outputs=outputs, ignored=ignored)
    scores = cast("list[Candidates]", resolve_function("score", method.score, SPECTRA)(problem))
    levels = resolve_function("allocation", method.allocation, RANK_ALLOCATIONS)(problem, scores, method.granularity)
    fixed_size = count_size(network, masks) - sum(candidates.kept for candidates in scores)

    @cache
    def factors(index: int, choice: Decomposition) -> Decomposed:
        new, before = scores[index].build(choice), current[index][1]
        # A fresh network's layer does not have a bias that an earlier step added.
        new.adds_bias |= isinstance(before, Decomposed) and before.adds_bias
        return new

    @cache
    def size_at(index: int, choice: Decomposition) -> int:
        new = factors(index, choice)
        return count_size(new, factor_masks(new, layers[index], masks)) - _bias_size(layers[index], masks)

    def size_of(choices: list[Choice]) -> int:
        return fixed_size + sum(
            size_at(index, choice) if isinstance(choice, Decomposition) else scores[index].kept
            for index, choice in enumerate(choices)
        )

    replaced: dict[str, Masks] = {}
    news: dict[int, nn.Module] = {}
    for index, choice in enumerate(_choose(levels, size_of, fixed_size, target_size, rules.spends_remainder)):
        if isinstance(choice, Decomposition):
            name, old = current[index]
            new = factors(index, choice)
            if new.error is None and not scores[index].of_outputs:
                new.error = decomposition_error(square(layers[index].module), choice, scores[index].spectra)
            news[id(old)] = new
            replaced[name] = factor_masks(new, layers[index], masks)
    network = replace_modules(network, news)
    return network, combined_masks(network, masks, replaced)


def _is_replaceable(module: nn.Module, rules: Rules) -> bool:
    """Return whether the method takes `module`, a compressible or decomposed layer."""
    return isinstance(module, Decomposed) or (
        takes("rank", module) and (rules.takes_every_kind or of_reference(module))
    )


def _is_special(module: nn.Module) -> bool:
    return not isinstance(module, Decomposed) and (has_own_forward(module) or has_hooks(module))


def _choose(
    levels: Levels, size_of: Callable[[list[Choice]], int], fixed_size: int, target_size: int, fills: bool
) -> list[Choice]:
    """Return the choices whose size is nearest to `target_size`; no choice changes `fixed_size` parameters of it.

    `fills`: a remaining budget is spent, if the method's definition leaves open how.
    """
    budget = target_size - fixed_size

    def filled(levels: RankLevels) -> list[Choice] | None:
        return levels.fill(budget) if fills and levels.fill else None

    def search(levels: Levels) -> list[Choice]:
        level = find_level(
            levels.count, lambda at: levels.cost(at) + fixed_size, lambda at: size_of(levels.choose(at)), target_size
        )
        choices = levels.choose(level)
        if isinstance(levels, RankLevels) and abs(size_of(choices) - target_size) > CLOSE_ENOUGH * target_size:
            finer = filled(levels) or choices
            choices = min(choices, finer, key=lambda each: abs(size_of(each) - target_size))
        return choices

    def estimate(levels: RankLevels) -> list[Choice]:
        return filled(levels) or levels.choose(level_at_budget(levels.count, levels.cost, budget))

    if isinstance(levels, RankLevels):
        levels, _ = choose_measured(levels, estimate)  # first without building factors
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


def _bias_size(layer: Layer, masks: Masks) -> int:
    """Return the number of kept entries of a layer's bias, or of the bias of the decoding that it was recomposed of."""
    if not isinstance(layer.module.bias, Tensor):
        return 0
    names = (f"{layer.name}.{name}".lstrip(".") for name in ("bias", "decode.bias"))
    mask = next((masks[name] for name in names if name in masks), None)
    return layer.module.bias.numel() if mask is None else count_true(mask)


def combined_masks(network: nn.Module, masks: Masks, replaced: dict[str, Masks]) -> Masks:
    """Return the masks of the new network: `masks` except for replaced layers, and `replaced`, those of their parts."""
    shapes = {name: parameter.shape for name, parameter in network.named_parameters()}
    prefixes = tuple(f"{name}." if name else "" for name in replaced)
    kept = {
        name: mask
        for name, mask in removals(masks).items()
        if name in shapes and mask.shape == shapes[name] and not name.startswith(prefixes)
    }
    for name, of_factors in replaced.items():
        kept |= {f"{name}.{part}".lstrip("."): mask for part, mask in of_factors.items()}
    return removals(kept)


def factor_masks(new: Decomposed, layer: Layer, masks: Masks) -> Masks:
    """Return the masks of a decomposition's parameters, by their names in it: the zeros of its factors are removed.

    They are the structure of the decomposition (groups, clusters), or come from filters and channels that an earlier
    step removed. Those that come from filters and channels which are zero, but not removed, are kept.
    """
    prefix = f"{layer.name}." if layer.name else ""
    before = removals({key: mask for key, mask in masks.items() if key.startswith(prefix)})
    encoder, decoder = (new.get_submodule(part).get_parameter("weight") for part in ("encode", "decode"))
    encodes, decodes = nonzero(encoder), nonzero(decoder)
    weights = nonzero(square(layer.module))
    if not before and count_true(weights) < weights.numel():
        matrix = weights.flatten(2).any(2)
        decodes |= ~matrix.any(1).view(-1, *[1] * (decoder.dim() - 1))
        groups = matrix.shape[1] // encoder.shape[1]  # of a convolution; a linear encoding has all columns
        idle = ~matrix.any(0).view(groups, 1, encoder.shape[1], *[1] * (encoder.dim() - 2))
        encodes |= idle.expand(groups, len(encoder) // groups, *idle.shape[2:]).flatten(0, 1)
    of_factors = {"encode.weight": encodes, "decode.weight": decodes}
    bias = next((mask for key, mask in before.items() if key.endswith("bias")), None)
    return of_factors if bias is None or new.bias is None else of_factors | {"decode.bias": bias}
