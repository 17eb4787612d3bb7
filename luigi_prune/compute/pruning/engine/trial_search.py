"""The search for the level that meets the target size, with propagation if the network's structure can be probed."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from luigi_prune.compute.copied_modules import cloned, copy_all
from luigi_prune.compute.duplicates import share_equal
from luigi_prune.compute.freed_memory import return_freed_memory
from luigi_prune.compute.pruning.allocations.by_score import ALLOCATIONS
from luigi_prune.compute.pruning.engine.budget_search import find_level
from luigi_prune.compute.pruning.engine.named_parts import resolve_function
from luigi_prune.compute.pruning.engine.network_checks import listed
from luigi_prune.compute.pruning.engine.trial import (
    Trial,
    changing_tensors,
    check_inputs,
    outputs_of,
    same_outputs,
)
from luigi_prune.compute.pruning.problem.equivalents import has_equivalents
from luigi_prune.compute.pruning.problem.layers import protected_parameters
from luigi_prune.compute.pruning.problem.masks import kept_of, removals
from luigi_prune.compute.pruning.problem.records import Problem, Scores
from luigi_prune.compute.pruning.scores import SCORES
from luigi_prune.compute.pruning.scores.foreign_scores import foreign_scores, lent
from luigi_prune.compute.pruning.selection.even_spread import spread_evenly
from luigi_prune.compute.pruning.sizes_and_flops import count_size
from luigi_prune.compute.pruning.structure.hidden_dependence import HIDDEN, unseen
from luigi_prune.compute.pruning.structure.probes import Probes
from luigi_prune.compute.pruning.structure.propagation import propagate
from luigi_prune.compute.pruning.structure.structure_probe import ChangingShapes
from luigi_prune.compute.zeros import equal, to_numbers
from luigi_prune.errors import ConfigError, first_line

if TYPE_CHECKING:
    from luigi_prune.registry import MethodRow


def search_trial(
    problem: Problem,
    given: nn.Module,
    method: MethodRow,
    target_size: int,
    remember: Callable[[Callable[[], Scores]], Scores],
) -> Trial:
    """Return the trial, at the level whose size is nearest to `target_size`.

    `given`: the network of which the problem's is a copy. The problem's does not change after propagation, and shares
    weights with it from then on, unless a score or an allocation from outside could change them.
    """
    probes = propagated_start(problem) if problem.rules.propagate_by_data is None else None
    score, seen = resolve_function("score", method.score, SCORES), lent(problem, method)
    allocation = resolve_function("allocation", method.allocation, ALLOCATIONS)
    is_ours = score in SCORES.values()
    if is_ours and allocation in ALLOCATIONS.values():
        is_same = probes is not None and probes.pruned_nothing and not has_equivalents(problem.network)
        share_equal(problem.network, given, known=is_same)
    return_freed_memory(problem.network)
    scores = remember(lambda: score(seen) if is_ours else foreign_scores(seen, method, score))
    tensors = [
        (layer.name, each) for layer, each in zip(problem.layers, scores, strict=True) if isinstance(each, Tensor)
    ]
    for (name, _), has_nan in zip(tensors, to_numbers(torch.isnan(each).any() for _, each in tensors), strict=True):
        if has_nan:
            raise ConfigError(f"{method.name}: the scores of layer {name!r} hold NaN")
    return_freed_memory(problem.network)
    levels = allocation(seen, scores, method.granularity)
    selection = resolve_function("selection", method.selection, problem.rules.selections)
    kept = sum(kept_of(problem.masks[layer.weight_name] for layer in problem.layers))
    fixed_size = count_size(problem.network, problem.masks) - kept

    def search(probes: Probes | None) -> tuple[Trial, int]:
        trial = Trial(problem, scores, levels, selection, method.granularity, probes)

        def find(first: int | None = None) -> int:
            return find_level(levels.count, lambda at: levels.cost(at) + fixed_size, trial.size_at, target_size, first)

        trial.quick = True
        level = find(found_without_draws(trial, find) if probes is not None and levels.empties_filters else None)
        size, trial.quick = trial.size_at(level), False
        if trial.size_at(level) != size:  # the probe on smaller images misjudges this network
            level = find()
            trial.size_at(level)
        return trial, level

    try:
        trial, level = search(probes)
    except ChangingShapes as error:
        problem.warnings.append(f"this network cannot be probed, so only the selected units are pruned: {error}")
        probes = None
        trial, level = search(None)
    if probes is not None and not trial.is_sound(level):
        problem.warnings.append(
            f"{method.name}: propagation would change this network's outputs, so only the selected units are pruned"
        )
        del trial  # its memory is needed for the next one
        trial, level = search(None)
    trial.release()
    return_freed_memory(problem.network)
    return trial


def found_without_draws(trial: Trial, find: Callable[[], int]) -> int:
    """Return the level that `find` returns if every filter keeps as many weights as it should, at equal distances."""
    trial.select_with(spread_evenly)
    level = find()
    trial.select_with(None)
    return level


def propagated_start(problem: Problem) -> Probes | None:
    """Prune parameters without effect from the problem's network; return its probes, or None if they are unreliable."""
    masks = dict(problem.masks)
    changing: list[Tensor] = []
    before: list[Tensor] = []
    try:
        probes = Probes(problem.network, problem.example_input)
        probe = probes.exact[0]
        more = chain([problem.example_input], (inputs for inputs, _ in problem.batches))
        if found := unseen(problem.network, probe.baseline, check_inputs(problem)[0], more):
            raise ValueError(f"{found[0]} ({listed(found[1])})")
        if not removals(masks) and probe.baseline.is_full():
            probes.pruned_nothing = True  # as in most networks
            return probes
        changing = changing_tensors(problem.network)
        before = cloned(changing)
        protected = protected_parameters(problem.network, problem.ignored)
        propagate(problem.network, problem.masks, probe, problem.example_input, structured=False, protected=protected)
    except torch.OutOfMemoryError:
        raise  # no property of the network
    except (RuntimeError, TypeError, ValueError) as error:
        reason = first_line(error)
    else:
        same = list(equal(zip(before, changing, strict=True)))
        if all(same):
            return probes
        before, changing = (
            [each for each, stays in zip(some, same, strict=True) if not stays] for some in (before, changing)
        )
        propagated = cloned(changing)
        inputs = check_inputs(problem)
        after = outputs_of(problem.network, inputs)
        copy_all(changing, before)
        if same_outputs(outputs_of(problem.network, inputs), after):
            copy_all(changing, propagated)
            return probes
        reason = HIDDEN
    problem.warnings.append(f"this network cannot be probed, so only the selected units are pruned: {reason}")
    copy_all(changing, before)
    problem.masks.update(masks)
    return None
