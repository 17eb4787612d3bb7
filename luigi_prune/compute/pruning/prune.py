"""One pruning step: scores, an allocation at the level that meets the budget, a selection, propagation.

A method is a row of the catalogue (score x allocation x granularity x selection), and `prune` is these lines:

    scores  = score(problem)                                  # once; larger = keep
    levels  = allocation(problem, scores, granularity)        # Levels: choices at each of `count` levels, ever more
    level   = find_level(levels, size_at, wanted)             # size_at cuts and propagates: what is checked is returned
    kept    = selection(score, alive, choice, draws)          # per layer; draws of one level hold those of lower ones
    network = propagate(cut(network, kept))

`Problem` carries what scores and allocations may need: the network of this step, its layers and masks, the calibration
batches and the loss, a generator per purpose. So SNIP, SiPP, PFP and ThiNet are scores that read `problem.batches`;
SiPPNetRand's allocation returns counts per (filter, sign); PFP's has the levels of its error and returns counts.

Low-rank methods use the same search. Their score is the spectra of each layer, one vector per (folding, groups),
computed once; a choice is a `Decomposition(rank, groups, folding)` or None (left alone); the size at a level is the
cost of the choices, without cutting anything. SVDNet's levels are the fractions where some round(v x full rank) grows.
ALDS's exact optimum is an allocation, too: its levels are the sorted relative errors of all (layer, folding, groups,
rank), largest first; at error v every layer takes its cheapest decomposition with an error of at most v, or stays as it
is; the cost grows with the level, and the search finds the smallest v that meets the budget.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from luigi_prune.compute.pruning.allocations import ALLOCATIONS
from luigi_prune.compute.pruning.counting import (
    LayerBudget,
    count_flops,
    count_outputs,
    count_size,
    flops_of,
    layer_budgets,
)
from luigi_prune.compute.pruning.foreign_scores import foreign_scores, lent
from luigi_prune.compute.pruning.granularity import GRANULARITIES
from luigi_prune.compute.pruning.layers import find_layers
from luigi_prune.compute.pruning.lowrank.decomposed import structure_of
from luigi_prune.compute.pruning.lowrank.ranks import decompose_network, undecomposed
from luigi_prune.compute.pruning.masks import Masks, apply_masks, initial_masks, removals
from luigi_prune.compute.pruning.probe import StructureProbe
from luigi_prune.compute.pruning.propagation import propagate
from luigi_prune.compute.pruning.protocol import Batches, Loss, Problem, Scores
from luigi_prune.compute.pruning.reference_selection import REFERENCE_SELECTIONS
from luigi_prune.compute.pruning.registry import resolve
from luigi_prune.compute.pruning.scores import SCORES
from luigi_prune.compute.pruning.search import find_level
from luigi_prune.compute.pruning.selection import SELECTIONS
from luigi_prune.compute.pruning.trial import (
    Trial,
    changing_tensors,
    check_inputs,
    outputs_of,
    same_outputs,
    write_tensors,
)
from luigi_prune.errors import ConfigError, UnreachableRatio, nearest
from luigi_prune.seeds import derive_seed

if TYPE_CHECKING:
    from luigi_prune.catalogue import MethodRow

EXAMPLES = 16  # samples of the example input that are used: enough to measure constants and to check outputs
TRACED = 2  # samples of it that runs see which only ask how layers hang together
TOLERANCE = 0.005  # relative; what misses the wanted ratio by more is worth a warning
log = logging.getLogger("luigi_prune")


@dataclass
class Pruned:
    """A pruned network with what was removed. `masks`: True = kept, only parameters with removed entries.

    `structure`: what `restore` needs to rebuild replaced layers on a fresh network; empty where masks say it all.
    """

    network: nn.Module
    masks: Masks
    structure: list[dict[str, Any]]
    layers: list[LayerBudget]
    size: int
    flops: int
    original_size: int
    original_flops: int


def prune(
    network: nn.Module,
    method: MethodRow,
    keep_ratio: float,
    *,
    example_input: Tensor,
    calibration: Batches | None,
    loss: Loss | None,
    seed: int,
    rules: str = "paper",
    original_size: int,
    original_flops: int | None = None,
    masks: Masks | None = None,
    delta_s: float = 1e-16,
    original: nn.Module | None = None,
    remember: Callable[[Callable[[], Scores]], Scores] = lambda compute: compute(),
) -> Pruned:
    """Return `network` pruned by `method` to `keep_ratio` x `original_size` parameters; `network` is not touched.

    `example_input`: a batch of the network's inputs, of any size. `masks`: what is removed already; it never
    comes back. `delta_s`: the failure probability in the sample sizes of SiPP and PFP.
    `original`: the network before any pruning, for methods that always begin with it (`from_original` in their row);
    without it `network` must be that. `remember` is given the function that computes the scores and returns its result,
    or what an earlier call with the same network, data and seed returned (low-rank methods do not ask).
    The achieved size is the one nearest to the wanted size that the method's levels offer; a warning says both where
    they differ by more than 0.5 %. Raises ConfigError for settings or data that cannot work, UnreachableRatio where
    nothing would be left of the network.
    """
    _check(method, keep_ratio, calibration, loss, rules, example_input, original_size)
    with torch.inference_mode(False), torch.no_grad():
        device = next((parameter.device for parameter in network.parameters()), example_input.device)
        example = _with_noise(example_input[:EXAMPLES].detach().clone().to(device), seed)
        batches = [(x.detach().clone().to(device), y.detach().clone().to(device)) for x, y in calibration or []]
        if method.from_original:
            network, masks = undecomposed(network if original is None else original, method.name), None
        start = copy.deepcopy(network)
        if method.granularity == "rank":
            outputs = count_outputs(start, example[:1])
            flops = flops_of(start, outputs) if original_flops is None else original_flops
            wanted = round(keep_ratio * original_size)
            pruned, held = decompose_network(
                start, method, wanted, example=example, outputs=outputs, batches=batches, loss=loss, seed=seed,
                rules=rules, masks=masks,
            )  # fmt: skip
            return _decomposed(pruned, held, method, keep_ratio, example, original_size, flops)
        outputs = count_outputs(start, example[: min(len(example_input), TRACED)])
        flops = flops_of(start, outputs) if original_flops is None else original_flops
        if method.granularity == "none":
            return _untouched(start, keep_ratio, original_size, flops, masks)
        needs = [parameter.requires_grad for parameter in start.parameters()]
        layers = find_layers(start, example[:TRACED], rules)
        if not layers:
            raise ConfigError(f"{method.name}: the network has no compressible layer (a Linear or an ungrouped Conv2d)")
        held = initial_masks(start, masks)
        apply_masks(start, held)
        problem = Problem(start, layers, held, outputs, example, batches, loss, seed, rules, delta_s)
        trial = _search(problem, method, round(keep_ratio * original_size), remember)
        for parameter, needed in zip(trial.network.parameters(), needs, strict=True):
            parameter.requires_grad_(needed)
        pruned = trial.network
        size = count_size(pruned)
        if not any(bool(trial.masks[layer.weight_name].any()) for layer in layers):
            raise UnreachableRatio(f"{method.name}: keep ratio {keep_ratio} leaves no weight on this network")
        _warn_if_missed(method, keep_ratio, size / original_size)
        return Pruned(
            pruned,
            removals(trial.masks),
            [],
            layer_budgets(pruned),
            size,
            flops_of(pruned, outputs),
            original_size,
            flops,
        )


def _check(
    method: MethodRow,
    keep_ratio: float,
    calibration: Batches | None,
    loss: Loss | None,
    rules: str,
    example_input: Tensor,
    original_size: int,
) -> None:
    """Raise ConfigError for what cannot work."""
    if not 0 < keep_ratio <= 1:  # NaN, too
        raise ConfigError(f"{method.name}: keep ratio {keep_ratio} is outside (0, 1]")
    if rules not in ("paper", "reference"):
        raise ConfigError(f"rules {rules!r} is neither 'paper' nor 'reference'")
    kind = method.granularity
    if kind not in ("none", "rank", *GRANULARITIES):
        raise ConfigError(f"{method.name}: granularity {kind!r} is not known{nearest(kind, (*GRANULARITIES, 'rank'))}")
    by_data = kind != "none" and (method.needs_data or (rules == "reference" and kind != "rank"))
    if by_data and (not calibration or loss is None):
        why = f"{method.name}" if method.needs_data else f"{method.name} with rules='reference'"
        raise ConfigError(f"{why} needs {'a loss' if calibration else 'calibration data'}: none is given")
    for index, (inputs, targets) in enumerate(calibration or []):
        for what, value in (("inputs", inputs), ("targets", targets)):
            if value.is_floating_point() and not bool(torch.isfinite(value).all()):
                raise ConfigError(f"{method.name}: calibration batch {index} has NaN or infinite {what}")
    if not example_input.dim() or not example_input.shape[0]:
        raise ConfigError(f"{method.name}: the example input is empty, shape {tuple(example_input.shape)}")
    if example_input.is_floating_point() and not bool(torch.isfinite(example_input).all()):
        raise ConfigError(f"{method.name}: the example input has NaN or infinite entries")
    if original_size <= 0:
        raise ConfigError(f"{method.name}: an original size of {original_size} leaves nothing to prune")


def _with_noise(example: Tensor, seed: int) -> Tensor:
    """Return the example followed by samples of noise with its mean and spread: what holds must hold for all."""
    if not example.is_floating_point():
        return example
    generator = torch.Generator().manual_seed(derive_seed(seed, "noise"))
    noise = torch.randn(max(2, min(len(example), 4)), *example.shape[1:], generator=generator).to(example)
    return torch.cat([example, example.mean() + example.float().std(correction=0).to(example) * noise])


def _untouched(network: nn.Module, keep_ratio: float, size: int, flops: int, masks: Masks | None) -> Pruned:
    """Return the network as it is, reported as if it had been pruned: the control methods."""
    held = removals(masks or {})
    return Pruned(
        network, held, [], layer_budgets(network), round(keep_ratio * size), round(keep_ratio * flops), size, flops
    )


def _decomposed(
    network: nn.Module, masks: Masks, method: MethodRow, keep_ratio: float, example: Tensor, original: int, flops: int
) -> Pruned:
    """Return the record of a network that `decompose_network` has made."""
    size = count_size(network)
    _warn_if_missed(method, keep_ratio, size / original)
    return Pruned(
        network, masks, structure_of(network), layer_budgets(network), size,
        count_flops(network, example[:1]), original, flops,
    )  # fmt: skip


def _search(
    problem: Problem, method: MethodRow, wanted: int, remember: Callable[[Callable[[], Scores]], Scores]
) -> Trial:
    """Return the trial, standing at the best level."""
    probe = _propagated_start(problem) if problem.rules == "paper" else None
    score, seen = resolve("score", method.score, SCORES), lent(problem, method)
    own = score in SCORES.values()
    scores = remember(lambda: score(seen) if own else foreign_scores(seen, method, score))
    for layer, numbers in zip(problem.layers, scores, strict=True):
        if isinstance(numbers, Tensor) and bool(torch.isnan(numbers).any()):
            raise ConfigError(f"{method.name}: the scores of layer {layer.name!r} hold NaN")
    levels = resolve("allocation", method.allocation, ALLOCATIONS)(seen, scores, method.granularity)
    known = SELECTIONS if problem.rules == "paper" else REFERENCE_SELECTIONS
    selection = resolve("selection", method.selection, known)
    outside = count_size(problem.network) - sum(int(problem.kept(layer).sum()) for layer in problem.layers)

    def search(structure: StructureProbe | None) -> tuple[Trial, int]:
        trial = Trial(problem, scores, levels, selection, method.granularity, structure)
        level = find_level(levels.count, lambda at: levels.cost(at) + outside, trial.size_at, wanted)
        trial.size_at(level)
        return trial, level

    trial, level = search(probe)
    if probe is not None and not trial.is_sound(level):
        log.warning(
            "%s: propagation would change this network's outputs, so nothing but the cut is removed", method.name
        )
        trial, level = search(None)
    return trial


def _propagated_start(problem: Problem) -> StructureProbe | None:
    """Remove from the problem's network what never had an effect; return the probe, or None if it misjudges it."""
    changing, masks = changing_tensors(problem.network), dict(problem.masks)
    before = [tensor.clone() for tensor in changing]
    try:
        probe = StructureProbe(problem.network, problem.example_input)
        propagate(problem.network, problem.masks, probe, problem.example_input, structured=False)
    except (RuntimeError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
    else:
        propagated = [tensor.clone() for tensor in changing]
        if all(torch.equal(one, other) for one, other in zip(before, propagated, strict=True)):
            return probe
        inputs = check_inputs(problem)
        after = outputs_of(problem.network, inputs)
        write_tensors(changing, before)
        if same_outputs(outputs_of(problem.network, inputs), after):
            write_tensors(changing, propagated)
            return probe
        reason = "its outputs depend on layers in a way that gradients do not show"
    log.warning("this network cannot be probed, so nothing but the cut is removed: %s", reason)
    write_tensors(changing, before)
    problem.masks.update(masks)
    return None


def _warn_if_missed(method: MethodRow, wanted: float, achieved: float) -> None:
    if abs(achieved - wanted) > TOLERANCE * wanted:
        log.warning(
            "%s: keep ratio %.4g cannot be met on this network; the closest is %.4g", method.name, wanted, achieved
        )
