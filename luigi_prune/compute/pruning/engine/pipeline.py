"""One pruning step: scores, an allocation at the level that meets the target size, a selection, propagation.

A method is a row of the registry (score x allocation x granularity x selection). In outline, `prune` is:

    scores  = score(problem)                            # once; larger = keep
    levels  = allocation(problem, scores, granularity)  # Levels: choices at each of `count` levels, increasing
    level   = find_level(levels, size_at, target_size)  # size_at cuts and propagates: the tested network is returned
    kept    = selection(score, alive, choice, draws)    # per layer; draws at a level contain those at lower ones
    network = propagate(cut(network, kept))

`Problem` holds the inputs of scores and allocations: the network of this step, its layers and masks, the calibration
batches and the loss, a generator per purpose. So SNIP, SiPP, PFP and ThiNet are scores that read `problem.batches`;
SiPPNetRand's allocation returns counts per (filter, sign); PFP's has one level per value of its error and returns
counts.

Low-rank methods use the same search. Their score is the spectra of each layer, one vector per (folding, groups),
computed once; a choice is a `Decomposition(rank, groups, folding)` or None (unchanged); the size at a level is the cost
of the choices, without building factors. SVDNet's levels are the fractions at which some round(v x full rank) grows.
ALDS's exact optimum is an allocation, too: its levels are the sorted relative errors of all (layer, folding, groups,
rank), largest first; at error v every layer takes its cheapest decomposition with an error of at most v, or stays
unchanged; the cost grows with the level, and the search finds the smallest v that meets the target size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import nn

from luigi_prune.compute.copy_checks import functions_of_original
from luigi_prune.compute.duplicates import duplicate
from luigi_prune.compute.masked import apply_masks
from luigi_prune.compute.network_inputs import Inputs, copied, first_and_last, network_device, sample_count, select
from luigi_prune.compute.own_draws import own_draws
from luigi_prune.compute.precision import full_precision, own_types
from luigi_prune.compute.pruning.engine.arguments import (
    check_arguments,
    checked_loss,
    explained_failure,
    first_run,
    ignored_names,
    in_one_piece,
    included_names,
    oom_in_step,
    with_noise,
)
from luigi_prune.compute.pruning.engine.decompose_network import decompose_network, undecomposed
from luigi_prune.compute.pruning.engine.fresh_weights import Initialise, initialiser
from luigi_prune.compute.pruning.engine.network_checks import (
    check_finite,
    check_kinds,
    narrowed,
    peculiarities,
    recomputed,
    without_zero_layers,
)
from luigi_prune.compute.pruning.engine.pruning_result import PruningResult, Recorder
from luigi_prune.compute.pruning.engine.rules import PAPER
from luigi_prune.compute.pruning.engine.trial import by_sample, outputs_of
from luigi_prune.compute.pruning.engine.trial_search import search_trial
from luigi_prune.compute.pruning.problem.equivalents import without_equivalents
from luigi_prune.compute.pruning.problem.layers import find_layers, left_alone, of_reference, takes, uncalled_layers
from luigi_prune.compute.pruning.problem.masks import (
    Masks,
    initial_masks,
    joined_masks,
    kept_of,
    remembering_counts,
    removals,
    zeros_as_masks,
)
from luigi_prune.compute.pruning.problem.records import Batches, Loss, Problem, Rules, Scores
from luigi_prune.compute.pruning.problem.weight_matrices import in_layers
from luigi_prune.compute.pruning.sizes_and_flops import (
    count_size,
    counting_outputs,
    flops_at,
    flops_of,
)
from luigi_prune.errors import ConfigError, UnreachableRatio
from luigi_prune.seeds import derive_seed

if TYPE_CHECKING:
    from luigi_prune.registry import MethodRow

EXAMPLES = 16  # samples of the example input that are used: enough to measure constants and to check outputs
TRACED = 2  # samples of it for runs that only find how layers are connected


@remembering_counts
def prune(
    network: nn.Module,
    method: MethodRow,
    keep_ratio: float,
    *,
    example_input: Inputs,
    calibration: Batches | None,
    loss: Loss | None,
    seed: int,
    rules: Rules = PAPER,
    original_size: int,
    original_flops: int | None = None,
    masks: Masks | None = None,
    delta_s: float = 1e-16,
    original: nn.Module | None = None,
    ignore: Iterable[str] = (),
    include: Iterable[str] = (),
    initialise: Initialise | None = None,
    remember: Callable[[Callable[[], Scores]], Scores] = lambda compute: compute(),
) -> PruningResult:
    """Return `network` pruned by `method` to `keep_ratio` x `original_size` parameters; `network` is not changed.

    `example_input`: a batch of the network's inputs (see `network_inputs`), of any size. `masks`: the entries pruned so
    far, which stay pruned. `delta_s`: the failure probability in the sample sizes of SiPP and PFP.
    `original`: the network before any pruning, for methods that always start from it (`from_original` in their row);
    without it `network` must be the original one. `ignore`: names of compressible layers, or patterns of names
    (`layer1.*`), that stay unchanged; the others meet the ratio, which is still of the whole network. `include`: names
    or patterns of embeddings that are pruned, too. `initialise` draws weights anew for methods that do (`initialiser`).
    `remember` gets the function that computes the scores and returns its result, or the result of an earlier call with
    the same network, data and seed (not called for low-rank methods).
    If the network has no more parameters than that already, it is returned unchanged. Zeros that no mask removes are
    parameters like others.

    The achieved size is the one nearest to the target size that the method's levels offer; the result's `warnings`
    report both if they differ by more than 0.5 %. Raises ConfigError for settings or data that cannot work,
    UnreachableRatio if no weight of the network would be left.
    """
    check_arguments(method, keep_ratio, calibration, loss, rules, example_input, original_size)
    check_kinds(method.name, network)
    device = network_device(network, example_input)
    with (
        oom_in_step(device, method, calibration),
        explained_failure(method),
        full_precision(device),
        own_types(device),
        own_draws(device, derive_seed(seed, "draws of the network")),
        torch.inference_mode(False),
        torch.no_grad(),
    ):
        example = with_noise(copied(select(example_input, slice(EXAMPLES)), device), seed)
        batches = [(copied(x, device), copied(y, device)) for x, y in calibration or []]
        if method.from_original:
            network, masks = undecomposed(network if original is None else original, method.name), None
        check_finite(method.name, network)
        draw = initialiser(method, network, seed, initialise)
        if rules.zeros_are_pruned:
            masks = joined_masks(zeros_as_masks(network), masks or {})
        notes = peculiarities(network, masks)
        start = in_one_piece(duplicate(network))
        notes += functions_of_original(network, start)
        if masks:
            initial_masks(start, masks)  # refuses masks that do not fit
        ignored, included = ignored_names(method, start, ignore), included_names(method, start, include, rules)
        start, held = in_layers(start, masks)
        traced = select(example, slice(min(sample_count(example_input), TRACED)))
        outputs, find_ends = first_run(method, start, traced, rules)
        flops = flops_of(start, outputs, held) if original_flops is None else original_flops
        size = count_size(start, held)
        record = Recorder(network, method, keep_ratio, example, ignored, bool(masks), original_size, flops, size, draw)
        target_size = round(keep_ratio * original_size)
        if method.granularity == "none":
            return record.control(masks or {})
        by_structure = method.granularity == "rank" or rules.propagate_by_data is None
        if by_structure and target_size >= size:
            return record(network, masks or {}, flops_of(start, outputs, held), notes)
        ignored |= _uncalled(method, start, outputs, ignored, notes)
        loss = checked_loss(method, loss)
        problem = Problem(start, [], held or {}, outputs, example, batches, loss, seed, rules, ignored, delta_s, notes)
        if method.granularity == "rank":
            return _prune_by_rank(problem, method, target_size, record)
        units = method.granularity if rules.takes_every_kind else "weight"  # the reference has no heads
        prunable = partial(is_prunable, method.granularity, rules)
        layers = find_layers(start, select(example, slice(TRACED)), find_ends, ignored, prunable, units, included)
        return _prune_by_units(replace(problem, layers=layers), method, target_size, record, remember)


def _prune_by_rank(problem: Problem, method: MethodRow, target_size: int, record: Recorder) -> PruningResult:
    """Return the result of decomposing the layers of the problem's network, which is changed."""
    evaluations = getattr(problem.network, "evaluations", 0)
    pruned, held = decompose_network(problem, method, target_size)
    ends = first_and_last(problem.example_input)
    with counting_outputs(pruned, sample_count(ends)) as outputs:
        values = by_sample(outputs_of(pruned, [ends]), ends)
    flops = flops_at(evaluations, pruned, outputs, held)
    return record(*without_equivalents(pruned, held), flops, problem.warnings, values, is_own=True)


def _prune_by_units(
    problem: Problem,
    method: MethodRow,
    target_size: int,
    record: Recorder,
    remember: Callable[[Callable[[], Scores]], Scores],
) -> PruningResult:
    """Return the result of pruning weights, filters or channels of the problem's layers; its network is changed."""
    network, layers, notes = problem.network, problem.layers, problem.warnings
    if not layers:
        raise ConfigError(f"{method.name}: the network has no compressible layer ({method.layers})")
    held = initial_masks(network, problem.masks)
    apply_masks(network, removals(held))
    notes += recomputed(method, layers)
    if not problem.rules.zeros_are_pruned:
        layers = without_zero_layers(layers, held)
    trial = search_trial(replace(problem, layers=layers, masks=held), record.network, method, target_size, remember)
    if not any(kept_of(trial.masks[layer.weight_name] for layer in layers)):
        raise UnreachableRatio(f"{method.name}: keep ratio {record.keep_ratio} leaves no weight on this network")
    if record.ignored:
        notes += narrowed(method, layers, held, trial.masks)
    flops = flops_of(trial.network, problem.outputs, trial.masks)
    pruned, held = without_equivalents(trial.network, removals(trial.masks))
    return record(pruned, held, flops, notes, trial.outputs, is_own=True)


def is_prunable(granularity: str, rules: Rules, module: nn.Module) -> bool:
    """Return whether methods of this granularity prune `module`, a compressible layer, under these rules."""
    return takes(granularity, module) and (rules.takes_every_kind or of_reference(module))


def _uncalled(
    method: MethodRow, network: nn.Module, outputs: dict[str, int], ignored: frozenset[str], warnings: list[str]
) -> frozenset[str]:
    """Return the names of layers that no forward pass calls, and add a line that names them to `warnings`."""
    uncalled = {name: m for name, m in uncalled_layers(network, outputs).items() if name not in ignored}
    if uncalled:
        warnings.append(left_alone(method.name, uncalled, "the example input does not reach by a call of the module"))
    return frozenset(uncalled)
