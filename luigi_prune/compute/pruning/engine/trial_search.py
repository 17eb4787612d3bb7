"""The search for the level that meets the target size, with propagation if the network's structure can be probed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from luigi_prune.compute.pruning.allocations.by_score import ALLOCATIONS
from luigi_prune.compute.pruning.engine.budget_search import find_level
from luigi_prune.compute.pruning.engine.named_parts import resolve_function
from luigi_prune.compute.pruning.engine.trial import (
    Trial,
    changing_tensors,
    check_inputs,
    outputs_of,
    same_outputs,
    write_tensors,
)
from luigi_prune.compute.pruning.problem.layers import protected_parameters
from luigi_prune.compute.pruning.problem.records import Problem, Scores
from luigi_prune.compute.pruning.scores import SCORES
from luigi_prune.compute.pruning.scores.foreign_scores import foreign_scores, lent
from luigi_prune.compute.pruning.sizes_and_flops import count_size
from luigi_prune.compute.pruning.structure.probes import Probes
from luigi_prune.compute.pruning.structure.propagation import propagate
from luigi_prune.compute.zeros import counts_true, equal, to_numbers
from luigi_prune.errors import ConfigError

if TYPE_CHECKING:
    from luigi_prune.registry import MethodRow


def search_trial(
    problem: Problem, method: MethodRow, target_size: int, remember: Callable[[Callable[[], Scores]], Scores]
) -> Trial:
    """Return the trial, at the level whose size is nearest to `target_size`."""
    probes = propagated_start(problem) if problem.rules.propagate_by_data is None else None
    score, seen = resolve_function("score", method.score, SCORES), lent(problem, method)
    is_ours = score in SCORES.values()
    scores = remember(lambda: score(seen) if is_ours else foreign_scores(seen, method, score))
    tensors = [
        (layer.name, each) for layer, each in zip(problem.layers, scores, strict=True) if isinstance(each, Tensor)
    ]
    for (name, _), has_nan in zip(tensors, to_numbers(torch.isnan(each).any() for _, each in tensors), strict=True):
        if has_nan:
            raise ConfigError(f"{method.name}: the scores of layer {name!r} hold NaN")
    levels = resolve_function("allocation", method.allocation, ALLOCATIONS)(seen, scores, method.granularity)
    selection = resolve_function("selection", method.selection, problem.rules.selections)
    fixed_size = count_size(problem.network) - sum(counts_true(problem.kept(layer) for layer in problem.layers))

    def search(probes: Probes | None) -> tuple[Trial, int]:
        trial = Trial(problem, scores, levels, selection, method.granularity, probes)

        def find() -> int:
            return find_level(levels.count, lambda at: levels.cost(at) + fixed_size, trial.size_at, target_size)

        trial.quick = True
        level = find()
        size, trial.quick = trial.size_at(level), False
        if trial.size_at(level) != size:  # the probe on smaller images misjudges this network
            level = find()
            trial.size_at(level)
        return trial, level

    trial, level = search(probes)
    if probes is not None and not trial.is_sound(level):
        problem.warnings.append(
            f"{method.name}: propagation would change this network's outputs, so only the selected units are pruned"
        )
        trial, level = search(None)
    return trial


def propagated_start(problem: Problem) -> Probes | None:
    """Prune parameters without effect from the problem's network; return its probes, or None if they are unreliable."""
    changing, masks = changing_tensors(problem.network), dict(problem.masks)
    before = [tensor.clone() for tensor in changing]
    try:
        probes = Probes(problem.network, problem.example_input)
        probe = probes.exact[0]
        protected = protected_parameters(problem.network, problem.ignored)
        propagate(problem.network, problem.masks, probe, problem.example_input, structured=False, protected=protected)
    except torch.OutOfMemoryError:
        raise  # no property of the network
    except (RuntimeError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
    else:
        propagated = [tensor.clone() for tensor in changing]
        if all(equal(zip(before, propagated, strict=True))):
            return probes
        inputs = check_inputs(problem)
        after = outputs_of(problem.network, inputs)
        write_tensors(changing, before)
        if same_outputs(outputs_of(problem.network, inputs), after):
            write_tensors(changing, propagated)
            return probes
        reason = "its outputs depend on layers in a way that gradients do not show"
    problem.warnings.append(f"this network cannot be probed, so only the selected units are pruned: {reason}")
    write_tensors(changing, before)
    problem.masks.update(masks)
    return None
