"""How far our results agree with the reference's, cell by cell: method x network x keep ratio of the golden files."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from luigi_prune import catalogue
from luigi_prune.compute.pruning import Pruned, prune
from luigi_prune.compute.pruning.allocations import ALLOCATIONS
from luigi_prune.compute.pruning.counting import count_outputs
from luigi_prune.compute.pruning.layers import find_layers
from luigi_prune.compute.pruning.masks import initial_masks
from luigi_prune.compute.pruning.protocol import Levels, Problem, Scores
from luigi_prune.compute.pruning.reference_selection import REFERENCE_SELECTIONS
from luigi_prune.compute.pruning.scores import SCORES
from luigi_prune.compute.pruning.search import level_at_budget
from luigi_prune.compute.pruning.trial import Trial
from tests.compute.pruning.zoo import golden, golden_batches, golden_network

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
    layers = find_layers(module, example, "reference")
    return Problem(
        module, layers, initial_masks(module, None), outputs, example, batches, F.cross_entropy, seed, "reference"
    )


def pruned_like_golden(network: str, method: str, size: float, rules: str = "reference") -> Pruned:
    """Return a golden network pruned to `size` parameters."""
    arrays = arrays_of(network)
    module, batches = golden_network(network, arrays), golden_batches(arrays)
    original = int(arrays["original/size"])
    return prune(
        module, catalogue.METHODS[method], size / original, example_input=batches[0][0], calibration=batches,
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
    """Agreement of one result: shares, relative differences and sizes."""

    masks: float
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
        logits=float(np.abs(ours - theirs).mean() / np.abs(theirs).mean()),
        size=pruned.size,
        reference_size=int(arrays[f"{cell}size"]),
        flops=pruned.flops,
        reference_flops=int(arrays[f"{cell}flops"]),
    )


@dataclass(frozen=True)
class Sampled:
    """Means over seeds, ours and the reference's, and their differences in standard errors (`z`).

    `first` is the reference's first seed, the only one whose budget is known, in standard deviations of ours.
    """

    size: float
    reference_size: float
    z_size: float
    z_counts: float
    z_accuracy: float
    off_counts: float
    first: float


def compare_sampled(network: str, method: str, ratio: str, seeds: int = 10) -> Sampled | None:
    """Return the agreement at the budget that the reference's first seed ended with, or None without its results.

    Its bisections for channels end on a jump, on either side: of the two levels there the one nearer to its first seed
    counts.
    """
    arrays, cell = arrays_of(network), f"{method}/{ratio}/"
    if f"{cell}nnz_per_layer" not in arrays:
        return None
    jumps = (0, 1) if catalogue.METHODS[method].granularity == "channel" else (0,)
    found = [_samples(network, method, int(arrays[f"{cell}budget"]), seeds, above) for above in jumps]
    sizes, counts, right = min(found, key=lambda each: abs(each[0].mean() - arrays[f"{cell}first/size"]))
    theirs, their_counts = arrays[f"{cell}size"], arrays[f"{cell}nnz_per_layer"].astype(float)
    off = np.abs(counts.mean(0) - their_counts.mean(0))
    error = _error(counts, their_counts)
    spread = np.maximum(np.r_[sizes.std(ddof=1), counts.std(0, ddof=1)], 1) * np.sqrt(1 + 1 / seeds)
    first = np.r_[arrays[f"{cell}first/size"], arrays[f"{cell}first/nnz_per_layer"]]
    return Sampled(
        size=float(sizes.mean()),
        reference_size=float(theirs.mean()),
        z_size=float(abs(sizes.mean() - theirs.mean()) / _error(sizes, theirs)),
        z_counts=float((off / error).max()),
        z_accuracy=float(abs(right.mean() - arrays[f"{cell}acc"].mean()) / _error(right, arrays[f"{cell}acc"], 0.005)),
        off_counts=float((off / np.maximum(their_counts.mean(0), 1)).max()),
        first=float((np.abs(np.r_[sizes.mean(), counts.mean(0)] - first) / spread).max()),
    )


def _error(ours: np.ndarray, theirs: np.ndarray, least: float = 0.5) -> np.ndarray:
    """Return the standard error of a difference of means over the first axis; at least half a weight's."""
    return np.maximum(np.sqrt(ours.var(0, ddof=1) / len(ours) + theirs.var(0, ddof=1) / len(theirs)), least)


@functools.lru_cache(maxsize=8)
def _prepared(network: str, method: str, seed: int) -> tuple[Problem, Scores, Levels]:
    row = catalogue.METHODS[method]
    with torch.no_grad():
        problem = reference_problem(network, seed)
        scores: list[Tensor] = SCORES[row.score](problem)
        return problem, scores, ALLOCATIONS[row.allocation](problem, scores, row.granularity)


def _samples(
    network: str, method: str, budget: int, seeds: int, above: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return sizes, kept weights per layer and accuracies over seeds, at the level of `budget` or one above."""
    row = catalogue.METHODS[method]
    sizes, counts, right = [], [], []
    with torch.no_grad():
        for seed in range(seeds):
            problem, scores, levels = _prepared(network, method, seed if method in OWN_SCORES else 0)
            level = min(level_at_budget(levels.count, levels.cost, budget) + above, levels.count - 1)
            own = dataclasses.replace(problem, seed=seed)
            trial = Trial(own, scores, levels, REFERENCE_SELECTIONS[row.selection], row.granularity, None)
            sizes.append(trial.size_at(level))
            counts.append([int(trial.masks[layer.weight_name].sum()) for layer in own.layers])
            right.append(accuracy(trial.network, network))
    return np.array(sizes, float), np.array(counts, float), np.array(right)
