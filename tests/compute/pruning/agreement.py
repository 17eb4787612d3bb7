"""How far our results agree with the reference's, cell by cell: method x network x keep ratio of the golden files."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from luigi_prune import registry
from luigi_prune.compute.pruning import PruningResult, prune
from luigi_prune.compute.pruning.allocations.by_score import ALLOCATIONS
from luigi_prune.compute.pruning.engine.trial import Trial
from luigi_prune.compute.pruning.problem.layers import find_layers
from luigi_prune.compute.pruning.problem.masks import initial_masks
from luigi_prune.compute.pruning.problem.records import Levels, Problem, Rules, Scores
from luigi_prune.compute.pruning.scores import SCORES
from luigi_prune.compute.pruning.sizes_and_flops import count_outputs
from luigi_prune.compute.pruning.torchprune.gradient_propagation import REFERENCE
from luigi_prune.compute.pruning.torchprune.sampling_draws import REFERENCE_SELECTIONS
from tests.compute.pruning.reference_search import level_where_it_ends, search
from tests.compute.pruning.zoo import GOLDEN, golden, golden_batches, golden_network

NETWORKS = ("mlp", "convnet")
RATIOS = ("0.8", "0.5", "0.2", "0.1")
EXACT = ("ThresNet", "SnipNet", "SiPPNet", "SiPPNetHybrid", "FilterThresNet", "SoftNet", "PFPNet")
RANDOMISED = (
    *("UniNet", "EllOneNet", "EllTwoNet", "EllOneAndTwoNet", "SiPPNetRand"),
    *("FilterUniNet", "ThiNet", "PFPNetRand", "PFPNetTop"),
)
OWN_SCORES = ("ThiNet", "FilterUniNet")  # whose scores the seed decides

arrays_of = functools.lru_cache(golden)


def reference_problem(network: str, seed: int = 0) -> Problem:
    """Return the problem that the golden results solve, by the reference's rules."""
    arrays = arrays_of(network)
    module, batches = golden_network(network, arrays), golden_batches(arrays)
    example = batches[0][0]
    outputs = count_outputs(module, example)
    layers = find_layers(module, example, REFERENCE.find_ends)
    return Problem(
        module, layers, initial_masks(module, None), outputs, example, batches, F.cross_entropy, seed, REFERENCE
    )


def pruned_like_golden(network: str, method: str, size: float, rules: Rules = REFERENCE) -> PruningResult:
    """Return a golden network pruned to `size` parameters."""
    arrays = arrays_of(network)
    module, batches = golden_network(network, arrays), golden_batches(arrays)
    original = int(arrays["original/size"])
    return prune(
        module, registry.METHODS[method], size / original, example_input=batches[0][0], calibration=batches,
        loss=F.cross_entropy, seed=0, rules=rules, original_size=original,
    )  # fmt: skip


def logits_of(module: nn.Module, network: str) -> np.ndarray:
    with torch.no_grad():
        return np.asarray(module(torch.from_numpy(arrays_of(network)["data/test_x"])).numpy())


def accuracy(module: nn.Module, network: str) -> float:
    """Return the share of the golden test digits that `module` gets right."""
    return float((logits_of(module, network).argmax(1) == arrays_of(network)["data/test_y"]).mean())


@dataclass(frozen=True)
class Exact:
    """Agreement of one result: shares, relative differences, sizes; `at_budget`: entries that differ at its budget."""

    masks: float
    at_budget: int
    logits: float
    size: int
    reference_size: int
    flops: int
    reference_flops: int


def compare_exact(network: str, method: str, ratio: str) -> Exact | None:
    """Return the agreement at the size that the reference achieved, or None where it has no result."""
    arrays, cell = arrays_of(network), f"{method}/{ratio}/"
    if f"{cell}logits" not in arrays:
        return None
    pruned = pruned_like_golden(network, method, float(arrays[f"{cell}size"]))
    equal = [
        ((parameter.detach().numpy() != 0) == arrays[f"{cell}masks/{key}"]).ravel()
        for key, parameter in pruned.network.named_parameters()
    ]
    theirs = arrays[f"{cell}logits"]
    ours = logits_of(pruned.network, network)[: len(theirs)]
    return Exact(
        masks=float(np.concatenate(equal).mean()),
        at_budget=_differing_at_budget(network, method, ratio),
        logits=float(np.abs(ours - theirs).mean() / np.abs(theirs).mean()),
        size=pruned.size,
        reference_size=int(arrays[f"{cell}size"]),
        flops=pruned.flops,
        reference_flops=int(arrays[f"{cell}flops"]),
    )


def _differing_at_budget(network: str, method: str, ratio: str) -> int:
    """Return how many mask entries differ from the reference's at the budget that its allocation was given last."""
    row = registry.METHODS[method]
    with np.load(GOLDEN / "search.npz") as stored:
        budget = float(stored[f"{network}/{method}/{ratio}"][-1, 1])
    with torch.no_grad():
        problem, scores, levels = _prepared(network, method, 0)
        trial = Trial(problem, scores, levels, REFERENCE_SELECTIONS[row.selection], row.granularity, None)
        trial.size_at(level_where_it_ends(levels, row.granularity, budget, drawn=False))
    theirs = arrays_of(network)
    return sum(
        int(((parameter.detach().numpy() != 0) != theirs[f"{method}/{ratio}/masks/{key}"]).sum())
        for key, parameter in trial.network.named_parameters()
    )


@dataclass(frozen=True)
class Sampled:
    """Means over seeds of whole searches, ours and the reference's, and their differences in standard errors (`z`).

    `first`: the reference's first seed, whose last budget is known, in standard deviations of ours at that budget.
    """

    size: float
    reference_size: float
    z_size: float
    z_counts: float
    z_accuracy: float
    first: float


def compare_sampled(network: str, method: str, ratio: str, seeds: int = 20) -> Sampled | None:
    """Return the agreement of searches with `seeds` seeds and the reference's ten, or None without its results.

    Each of its seeds ended at a budget of its own, so ours search as it does (`reference_search`).
    """
    arrays, cell = arrays_of(network), f"{method}/{ratio}/"
    if f"{cell}nnz_per_layer" not in arrays:
        return None
    drawn = [_searched(network, method, float(ratio), seed) for seed in range(seeds)]
    sizes, counts, right = (np.array(each, float) for each in zip(*drawn, strict=True))
    theirs, their_counts = arrays[f"{cell}size"].astype(float), arrays[f"{cell}nnz_per_layer"].astype(float)
    budget = int(arrays[f"{cell}budget"])
    again = np.array(
        [[found[0], *found[1]] for found in (_at(network, method, seed, 999, budget) for seed in range(10))]
    )
    spread = np.maximum(again.std(0, ddof=1), 1) * np.sqrt(1 + 1 / len(again))
    first = np.r_[arrays[f"{cell}first/size"], arrays[f"{cell}first/nnz_per_layer"]]
    return Sampled(
        size=float(sizes.mean()),
        reference_size=float(theirs.mean()),
        z_size=float(_off(sizes, theirs)),
        z_counts=float(_off(counts, their_counts).max()),
        z_accuracy=float(_off(right, arrays[f"{cell}acc"], 0.005)),
        first=float((np.abs(first - again.mean(0)) / spread).max()),
    )


def _off(ours: np.ndarray, theirs: np.ndarray, least: float = 0.5) -> np.ndarray:
    """Return the difference of two means over the first axis in standard errors; one is at least `least`.

    Both are taken to be drawn alike, so that their spreads are pooled.
    """
    free = len(ours) + len(theirs) - 2
    pooled = ((len(ours) - 1) * ours.var(0, ddof=1) + (len(theirs) - 1) * theirs.var(0, ddof=1)) / free
    error = np.maximum(np.sqrt(pooled * (1 / len(ours) + 1 / len(theirs))), least)
    return np.asarray(np.abs(ours.mean(0) - theirs.mean(0)) / error)


@functools.lru_cache(maxsize=64)
def _prepared(network: str, method: str, seed: int) -> tuple[Problem, Scores, Levels]:
    row = registry.METHODS[method]
    with torch.no_grad():
        problem = reference_problem(network, seed)
        scores: list[Tensor] = SCORES[row.score](problem)
        return problem, scores, ALLOCATIONS[row.allocation](problem, scores, row.granularity)


def _searched(network: str, method: str, ratio: float, seed: int) -> tuple[int, list[int], float]:
    """Return size, kept weights per layer and accuracy where the reference's search would end."""
    original = int(arrays_of(network)["original/size"])
    found: list[tuple[int, list[int], float]] = []

    def size_at(tried: float) -> int:
        found.append(_at(network, method, seed, len(found), int(tried * original) - _outside(network)))
        return found[-1][0]

    search(size_at, original, ratio)
    return found[-1]


@functools.lru_cache
def _outside(network: str) -> int:
    """Return how many parameters are not weights of compressible layers."""
    weights = sum(layer.weight.numel() for layer in reference_problem(network).layers)
    return int(arrays_of(network)["original/size"]) - weights


def _at(network: str, method: str, seed: int, draw: int, budget: int) -> tuple[int, list[int], float]:
    """Return size, kept weights per layer and accuracy of one of a seed's draws at a budget."""
    row = registry.METHODS[method]
    with torch.no_grad():
        problem, scores, levels = _prepared(network, method, seed if method in OWN_SCORES else 0)
        own = dataclasses.replace(problem, seed=1000 * (seed + 1) + draw)
        trial = Trial(own, scores, levels, REFERENCE_SELECTIONS[row.selection], row.granularity, None)
        drawn = row.selection != "top"
        size = trial.size_at(level_where_it_ends(levels, row.granularity, max(budget, 0), drawn=drawn))
        counts = [int(trial.masks[layer.weight_name].sum()) for layer in own.layers]
        return size, counts, accuracy(trial.network, network)
