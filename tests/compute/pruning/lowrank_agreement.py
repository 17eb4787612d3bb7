"""How far our decompositions agree with the reference's, cell by cell: method x network x keep ratio."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from luigi_prune import registry
from luigi_prune.compute.pruning import PruningResult, prune
from luigi_prune.compute.pruning.engine.rules import PAPER
from luigi_prune.compute.pruning.low_rank.candidates import SPECTRA, Candidates
from luigi_prune.compute.pruning.low_rank.rank_levels import RANK_ALLOCATIONS, RankLevels
from luigi_prune.compute.pruning.problem.layers import Layer, compressible_modules
from luigi_prune.compute.pruning.problem.records import Decomposition, Problem, Rules
from luigi_prune.compute.pruning.sizes_and_flops import count_outputs
from luigi_prune.compute.pruning.torchprune.gradient_propagation import REFERENCE
from tests.compute.pruning.zoo import GOLDEN, golden, golden_batches, golden_network

RANK_METHODS = [name for name, row in registry.METHODS.items() if row.granularity == "rank"]
OPTIMAL = ("ALDSNet", "ALDSNetPlus", "ALDSNetOne")
CLUSTERED = ("MessiNet", "MessiNet5")
SAME = [name for name in RANK_METHODS if name not in (*OPTIMAL, "ALDSNetOptK", *CLUSTERED)]


def lowrank_golden(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"lowrank_{name}.npz") as stored:
        return dict(stored)


def prune_to(name: str, method: str, size: int, seed: int = 0, rules: Rules = REFERENCE) -> PruningResult:
    arrays = golden(name)
    network, batches = golden_network(name, arrays), golden_batches(arrays)
    original = int(arrays["original/size"])
    return prune(
        network, registry.METHODS[method], size / original, example_input=batches[0][0], calibration=batches,
        loss=F.cross_entropy, seed=seed, rules=rules, original_size=original,
    )  # fmt: skip


def decompositions(pruned: PruningResult) -> list[list[int]]:
    """Return rank, groups and folding of every layer; -1 for those that stayed."""
    found = {entry["layer"]: [entry["rank"], entry["groups"], entry["folding"]] for entry in pruned.structure}
    return [found.get(layer.name, [-1, -1, -1]) for layer in pruned.layers]


def candidates(name: str, method: str) -> tuple[list[Candidates], RankLevels]:
    arrays, row = golden(name), registry.METHODS[method]
    network, x = golden_network(name, arrays), torch.from_numpy(arrays["data/calib_x"][:1])
    layers = [Layer(layer, module, layer, False, False) for layer, module in compressible_modules(network)]
    kept = {layer.name: torch.tensor(layer.weight.numel()) for layer in layers}
    problem = Problem(network, layers, kept, count_outputs(network, x), x, [], None, 0, PAPER)
    with torch.no_grad():
        scores = SPECTRA[row.score](problem)
        for spectrum in (spectrum for layer in scores for spectrum in layer.spectra):
            assert spectrum.values.size  # measures it: there are no bounds left to choose by
    levels = RANK_ALLOCATIONS[row.allocation](problem, scores, "rank")
    assert isinstance(levels, RankLevels)
    return scores, levels


def error_and_cost(layer: Candidates, choice: Decomposition | None) -> tuple[float, int]:
    """Return the relative error of a choice by ALDS's measure, and its weights."""
    if choice is None:
        return 0.0, layer.kept
    spectrum = next(s for s in layer.spectra if (s.groups, s.folding) == (choice.groups, choice.folding))
    return float(spectrum.errors()[choice.rank - 1]), choice.rank * spectrum.per_rank


def weight_of(network: nn.Module, layer: str) -> Tensor:
    """Return the weight of a layer, recomposed where it is decomposed."""
    weight = network.get_submodule(layer).weight
    assert isinstance(weight, Tensor)
    return weight.detach()


def true_errors(name: str, pruned: PruningResult) -> list[float]:
    """Return the relative operator-norm error of every layer's recomposed weight, as filters x the rest."""
    original = golden_network(name, golden(name))
    found = []
    for layer in pruned.layers:
        weight = weight_of(original, layer.name).flatten(1)
        own = weight_of(pruned.network, layer.name).reshape(weight.shape)
        found.append(float(torch.linalg.matrix_norm(weight - own, 2) / torch.linalg.matrix_norm(weight, 2)))
    return found


@dataclass(frozen=True)
class Ranked:
    """Agreement of one decomposition. `weights`, `logits`: largest differences relative to the largest entry, or None.

    `weights`: of the recomposed weights, filters x the rest, times a random vector, so that the files stay small.

    `error`, `reference_error`: the largest relative error over the layers; for ALDS by its measure, in one currency.
    """

    same_layers: int
    layers: int
    choices: list[list[int]]
    reference_choices: list[list[int]]
    weights: float | None
    logits: float | None
    size: int
    reference_size: int
    flops: int
    reference_flops: int
    error: float
    reference_error: float


def compare_ranks(network: str, method: str, ratio: str) -> Ranked:
    """Return the agreement at the size that the reference achieved."""
    theirs, arrays, cell = lowrank_golden(network), golden(network), f"{method}/{ratio}/"
    pruned = prune_to(network, method, int(theirs[f"{cell}size"]))
    ours, wanted = decompositions(pruned), theirs[f"{cell}decomposition"].tolist()
    weights = off_weights(network, method, ratio, pruned)
    logits = None
    if f"{cell}logits" in theirs:
        with torch.no_grad():
            own = pruned.network(torch.from_numpy(arrays["data/test_x"][:64])).numpy()
        logits = float(np.abs(own - theirs[f"{cell}logits"]).max() / np.abs(theirs[f"{cell}logits"]).max())
    if method in OPTIMAL:
        error, reference_error = alds_errors(network, method, ratio, ours)
    else:
        error, reference_error = max(true_errors(network, pruned)), float(np.nanmax(theirs[f"{cell}rel_err_op"]))
    same = sum(one == other for one, other in zip(ours, wanted, strict=True))
    return Ranked(
        same, len(wanted), ours, wanted, weights, logits, pruned.size,
        int(theirs[f"{cell}size"]), pruned.flops, int(theirs[f"{cell}true_flops"]), error, reference_error,
    )  # fmt: skip


def off_weights(network: str, method: str, ratio: str, pruned: PruningResult) -> float | None:
    """Return the largest difference of recomposed weights times a random vector, relative to the largest entry."""
    found = []
    with np.load(GOLDEN / "lowrank_weights.npz") as stored:
        for layer in pruned.layers:
            if (key := f"{network}/{method}/{ratio}/{layer.name}") in stored:
                weight = weight_of(pruned.network, layer.name).flatten(1).double().numpy()
                ours = weight @ np.random.default_rng(0).standard_normal(weight.shape[1])
                found.append(float(np.abs(ours - stored[key]).max() / np.abs(stored[key]).max()))
    return max(found, default=None)


def alds_errors(network: str, method: str, ratio: str, ours: list[list[int]]) -> tuple[float, float]:
    """Return the largest relative error by ALDS's measure of our choices and of the reference's."""
    scores, _ = candidates(network, method)
    theirs = lowrank_golden(network)[f"{method}/{ratio}/decomposition"].tolist()
    mine, other = (
        max(error_and_cost(layer, _choice(*found))[0] for layer, found in zip(scores, made, strict=True))
        for made in (ours, theirs)
    )
    return mine, other


def _choice(rank: int, groups: int, folding: int) -> Decomposition | None:
    return None if rank < 0 else Decomposition(rank, groups, folding)
