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

import copy
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from luigi_prune.compute.masked import apply_masks
from luigi_prune.compute.memory import explain_oom
from luigi_prune.compute.precision import full_precision
from luigi_prune.compute.pruning.allocations.by_score import ALLOCATIONS
from luigi_prune.compute.pruning.engine.budget_search import find_level
from luigi_prune.compute.pruning.engine.decompose_network import decompose_network, undecomposed
from luigi_prune.compute.pruning.engine.named_parts import resolve_function
from luigi_prune.compute.pruning.engine.rules import PAPER
from luigi_prune.compute.pruning.engine.trial import (
    Trial,
    changing_tensors,
    check_inputs,
    outputs_of,
    same_outputs,
    write_tensors,
)
from luigi_prune.compute.pruning.low_rank.decomposed import structure_of
from luigi_prune.compute.pruning.problem.granularity import GRANULARITIES
from luigi_prune.compute.pruning.problem.layers import find_layers, ignored_layers, protected_parameters
from luigi_prune.compute.pruning.problem.masks import Masks, initial_masks, removals
from luigi_prune.compute.pruning.problem.records import Batches, Loss, Problem, Rules, Scores
from luigi_prune.compute.pruning.scores import SCORES
from luigi_prune.compute.pruning.scores.foreign_scores import foreign_scores, lent
from luigi_prune.compute.pruning.sizes_and_flops import (
    LayerBudget,
    count_flops,
    count_outputs,
    count_size,
    flops_of,
    layer_budgets,
)
from luigi_prune.compute.pruning.structure.propagation import propagate
from luigi_prune.compute.pruning.structure.structure_probe import StructureProbe
from luigi_prune.compute.zeros import counts_true, equal, to_numbers
from luigi_prune.errors import ConfigError, UnreachableRatio, nearest
from luigi_prune.seeds import derive_seed

if TYPE_CHECKING:
    from luigi_prune.registry import MethodRow

EXAMPLES = 16  # samples of the example input that are used: enough to measure constants and to check outputs
TRACED = 2  # samples of it for runs that only find how layers are connected
TOLERANCE = 0.005  # relative; a larger difference from the target keep ratio is a warning


@dataclass(kw_only=True)
class PruningResult:
    """A pruned network and its pruned entries. `masks`: True = kept; only parameters with pruned entries.

    `structure`: the replaced layers, from which `restore` rebuilds them on a fresh network; empty if there are none.
    `layers`: per compressible layer. `size`: non-zero parameters. `flops`: multiply-adds of one sample. `warnings`:
    lines for the caller's user.
    """

    network: nn.Module = field(repr=False)
    masks: Masks = field(repr=False)
    structure: list[dict[str, Any]] = field(repr=False)
    layers: Sequence[LayerBudget] = field(repr=False)
    size: int
    flops: int | None
    original_size: int
    original_flops: int | None
    warnings: list[str] = field(default_factory=list, repr=False)


def prune(
    network: nn.Module,
    method: MethodRow,
    keep_ratio: float,
    *,
    example_input: Tensor,
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
    remember: Callable[[Callable[[], Scores]], Scores] = lambda compute: compute(),
) -> PruningResult:
    """Return `network` pruned by `method` to `keep_ratio` x `original_size` parameters; `network` is not changed.

    `example_input`: a batch of the network's inputs, of any size. `masks`: the entries pruned so far, which stay
    pruned. `delta_s`: the failure probability in the sample sizes of SiPP and PFP.
    `original`: the network before any pruning, for methods that always start from it (`from_original` in their row);
    without it `network` must be the original one. `ignore`: names of compressible layers, or patterns of names
    (`layer1.*`), that stay unchanged; the others meet the ratio, which is still of the whole network. `remember` gets
    the function that computes the scores and returns its result, or the result of an earlier call with the same
    network, data and seed (not called for low-rank methods).
    The achieved size is the one nearest to the target size that the method's levels offer; the result's `warnings`
    report both if they differ by more than 0.5 %. Raises ConfigError for settings or data that cannot work,
    UnreachableRatio if no weight of the network would be left.
    """
    _check(method, keep_ratio, calibration, loss, rules, example_input, original_size)
    device = next((parameter.device for parameter in network.parameters()), example_input.device)
    with (
        _explain_oom(device, method, calibration),
        full_precision(device),
        torch.inference_mode(False),
        torch.no_grad(),
    ):
        example = _with_noise(example_input[:EXAMPLES].detach().clone().to(device), seed)
        batches = [(x.detach().clone().to(device), y.detach().clone().to(device)) for x, y in calibration or []]
        if method.from_original:
            network, masks = undecomposed(network if original is None else original, method.name), None
        start = copy.deepcopy(network)
        ignored = _ignored(method, start, ignore)
        if method.granularity == "rank":
            outputs = count_outputs(start, example[:1])
            flops = flops_of(start, outputs) if original_flops is None else original_flops
            target_size = round(keep_ratio * original_size)
            pruned, held = decompose_network(
                start, method, target_size, example=example, outputs=outputs, batches=batches, loss=loss, seed=seed,
                rules=rules, masks=masks, ignored=ignored,
            )  # fmt: skip
            return _decomposed(pruned, held, method, keep_ratio, example, original_size, flops)
        outputs = count_outputs(start, example[: min(len(example_input), TRACED)])
        flops = flops_of(start, outputs) if original_flops is None else original_flops
        if method.granularity == "none":
            return _untouched(start, keep_ratio, original_size, flops, masks)
        needs = [parameter.requires_grad for parameter in start.parameters()]
        layers = find_layers(start, example[:TRACED], rules.find_ends, ignored)
        if not layers:
            raise ConfigError(f"{method.name}: the network has no compressible layer (a Linear or an ungrouped Conv2d)")
        held = initial_masks(start, masks)
        apply_masks(start, held)
        problem = Problem(start, layers, held, outputs, example, batches, loss, seed, rules, ignored, delta_s)
        trial = _search(problem, method, round(keep_ratio * original_size), remember)
        for parameter, needed in zip(trial.network.parameters(), needs, strict=True):
            parameter.requires_grad_(needed)
        pruned = trial.network
        size = count_size(pruned)
        if not any(to_numbers(trial.masks[layer.weight_name].any() for layer in layers)):
            raise UnreachableRatio(f"{method.name}: keep ratio {keep_ratio} leaves no weight on this network")
        return PruningResult(
            network=pruned,
            masks=removals(trial.masks),
            structure=[],
            layers=layer_budgets(pruned),
            size=size,
            flops=flops_of(pruned, outputs),
            original_size=original_size,
            original_flops=flops,
            warnings=[*problem.warnings, *_missed(method, keep_ratio, size / original_size)],
        )


def _explain_oom(device: torch.device, method: MethodRow, calibration: Batches | None) -> AbstractContextManager[None]:
    """Name the sizes of the calibration batches, and a cure, if the device runs out of memory."""
    sizes = [len(inputs) for inputs, _ in calibration or []]
    by_data = f" with {sum(sizes)} calibration samples in batches of {max(sizes)}" if sizes else ""
    cure = "use smaller calibration batches and inputs, " if sizes else "use smaller inputs, "
    return explain_oom(device, f"{method.name}{by_data}", f"{cure}or another device (luigi.cfg: [compute] device)")


def _check(
    method: MethodRow,
    keep_ratio: float,
    calibration: Batches | None,
    loss: Loss | None,
    rules: Rules,
    example_input: Tensor,
    original_size: int,
) -> None:
    """Raise ConfigError for settings and data that cannot work."""
    if not 0 < keep_ratio <= 1:  # NaN, too
        raise ConfigError(f"{method.name}: keep ratio {keep_ratio} is outside (0, 1]")
    kind = method.granularity
    if kind not in ("none", "rank", *GRANULARITIES):
        raise ConfigError(f"{method.name}: granularity {kind!r} is not known{nearest(kind, (*GRANULARITIES, 'rank'))}")
    if rules.needs_data(method) and (not calibration or loss is None):
        missing = "a loss" if calibration else "calibration data"
        raise ConfigError(f"{rules.data_reader(method)} needs {missing}: none is given")
    tensors = [
        (index, what, value)
        for index, pair in enumerate(calibration or [])
        for what, value in zip(("inputs", "targets"), pair, strict=True)
        if value.is_floating_point()
    ]
    finite = to_numbers(torch.isfinite(value).all() for _, _, value in tensors)
    for (index, what, _), is_finite in zip(tensors, finite, strict=True):
        if not is_finite:
            raise ConfigError(f"{method.name}: calibration batch {index} has NaN or infinite {what}")
    if not example_input.dim() or not example_input.shape[0]:
        raise ConfigError(f"{method.name}: the example input is empty, shape {tuple(example_input.shape)}")
    if example_input.is_floating_point() and not bool(torch.isfinite(example_input).all()):
        raise ConfigError(f"{method.name}: the example input has NaN or infinite entries")
    if original_size <= 0:
        raise ConfigError(f"{method.name}: an original size of {original_size} leaves nothing to prune")


def _ignored(method: MethodRow, network: nn.Module, patterns: Iterable[str]) -> frozenset[str]:
    """Return the names of the layers that must stay as they are; raise ConfigError if no layer is left to prune."""
    names = [layer.name for layer in layer_budgets(network)]
    ignored = ignored_layers(names, (patterns,) if isinstance(patterns, str) else patterns)
    if names and len(ignored) == len(names) and method.granularity != "none":
        raise ConfigError(f"{method.name}: ignore leaves none of the {len(names)} compressible layers to prune")
    return ignored


def _with_noise(example: Tensor, seed: int) -> Tensor:
    """Return the example followed by noise with its mean and spread, so that checks do not rely on the data."""
    if not example.is_floating_point():
        return example
    generator = torch.Generator().manual_seed(derive_seed(seed, "noise"))
    noise = torch.randn(max(2, min(len(example), 4)), *example.shape[1:], generator=generator).to(example)
    return torch.cat([example, example.mean() + example.float().std(correction=0).to(example) * noise])


def _untouched(network: nn.Module, keep_ratio: float, size: int, flops: int, masks: Masks | None) -> PruningResult:
    """Return the unchanged network, with sizes as if it had been pruned: the control methods."""
    return PruningResult(
        network=network,
        masks=removals(masks or {}),
        structure=[],
        layers=layer_budgets(network),
        size=round(keep_ratio * size),
        flops=round(keep_ratio * flops),
        original_size=size,
        original_flops=flops,
    )


def _decomposed(
    network: nn.Module, masks: Masks, method: MethodRow, keep_ratio: float, example: Tensor, original: int, flops: int
) -> PruningResult:
    """Return the record of a network decomposed by `decompose_network`."""
    size = count_size(network)
    return PruningResult(
        network=network,
        masks=masks,
        structure=structure_of(network),
        layers=layer_budgets(network),
        size=size,
        flops=count_flops(network, example[:1]),
        original_size=original,
        original_flops=flops,
        warnings=_missed(method, keep_ratio, size / original),
    )


def _search(
    problem: Problem, method: MethodRow, target_size: int, remember: Callable[[Callable[[], Scores]], Scores]
) -> Trial:
    """Return the trial, at the level whose size is nearest to `target_size`."""
    probe = _propagated_start(problem) if problem.rules.propagate_by_data is None else None
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

    def search(structure: StructureProbe | None) -> tuple[Trial, int]:
        trial = Trial(problem, scores, levels, selection, method.granularity, structure)
        level = find_level(levels.count, lambda at: levels.cost(at) + fixed_size, trial.size_at, target_size)
        trial.size_at(level)
        return trial, level

    trial, level = search(probe)
    if probe is not None and not trial.is_sound(level):
        problem.warnings.append(
            f"{method.name}: propagation would change this network's outputs, so only the selected units are pruned"
        )
        trial, level = search(None)
    return trial


def _propagated_start(problem: Problem) -> StructureProbe | None:
    """Prune parameters without effect from the problem's network; return the probe, or None if it is unreliable."""
    changing, masks = changing_tensors(problem.network), dict(problem.masks)
    before = [tensor.clone() for tensor in changing]
    try:
        probe = StructureProbe(problem.network, problem.example_input)
        protected = protected_parameters(problem.network, problem.ignored)
        propagate(problem.network, problem.masks, probe, problem.example_input, structured=False, protected=protected)
    except torch.OutOfMemoryError:
        raise  # no property of the network
    except (RuntimeError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
    else:
        propagated = [tensor.clone() for tensor in changing]
        if all(equal(zip(before, propagated, strict=True))):
            return probe
        inputs = check_inputs(problem)
        after = outputs_of(problem.network, inputs)
        write_tensors(changing, before)
        if same_outputs(outputs_of(problem.network, inputs), after):
            write_tensors(changing, propagated)
            return probe
        reason = "its outputs depend on layers in a way that gradients do not show"
    problem.warnings.append(f"this network cannot be probed, so only the selected units are pruned: {reason}")
    write_tensors(changing, before)
    problem.masks.update(masks)
    return None


def _missed(method: MethodRow, target: float, achieved: float) -> list[str]:
    """Return a warning if the achieved keep ratio differs from the target by more than 0.5 %, else nothing."""
    if abs(achieved - target) <= TOLERANCE * target:
        return []
    return [f"{method.name}: keep ratio {target:.4g} cannot be met on this network; the closest is {achieved:.4g}"]
