"""At the size that the reference achieved: its ranks, groups, foldings, weights and outputs; never a larger error."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from luigi_prune import catalogue
from luigi_prune.compute.pruning import Pruned, prune
from luigi_prune.compute.pruning.counting import count_outputs
from luigi_prune.compute.pruning.layers import Layer, compressible_modules
from luigi_prune.compute.pruning.lowrank.candidates import SPECTRA, Candidates
from luigi_prune.compute.pruning.lowrank.paths import RANK_ALLOCATIONS, RankLevels
from luigi_prune.compute.pruning.protocol import Decomposition, Problem
from tests.compute.pruning.zoo import GOLDEN, golden, golden_batches, golden_network

RATIOS = ("0.8", "0.5", "0.2", "0.1")
RANK_METHODS = [name for name, row in catalogue.METHODS.items() if row.granularity == "rank"]
OPTIMAL = ("ALDSNet", "ALDSNetPlus", "ALDSNetOne")
SAME = [name for name in RANK_METHODS if name not in (*OPTIMAL, "ALDSNetOptK", "MessiNet", "MessiNet5")]


def lowrank_golden(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"lowrank_{name}.npz") as stored:
        return dict(stored)


def prune_to(name: str, method: str, size: int, seed: int = 0, rules: str = "reference") -> Pruned:
    arrays = golden(name)
    network, batches = golden_network(name, arrays), golden_batches(arrays)
    original = int(arrays["original/size"])
    return prune(
        network, catalogue.METHODS[method], size / original, example_input=batches[0][0], calibration=batches,
        loss=F.cross_entropy, seed=seed, rules=rules, original_size=original,
    )  # fmt: skip


def decompositions(pruned: Pruned) -> list[list[int]]:
    """Return rank, groups and folding of every layer; -1 for those that stayed."""
    found = {entry["layer"]: [entry["rank"], entry["groups"], entry["folding"]] for entry in pruned.structure}
    return [found.get(layer.name, [-1, -1, -1]) for layer in pruned.layers]


def candidates(name: str, method: str) -> tuple[list[Candidates], RankLevels]:
    arrays, row = golden(name), catalogue.METHODS[method]
    network, x = golden_network(name, arrays), torch.from_numpy(arrays["data/calib_x"][:1])
    layers = [Layer(layer, module, layer, False, False) for layer, module in compressible_modules(network)]
    kept = {layer.name: torch.tensor(layer.weight.numel()) for layer in layers}
    problem = Problem(network, layers, kept, count_outputs(network, x), x, [], None, 0, "paper")
    with torch.no_grad():
        scores = SPECTRA[row.score](problem)
    levels = RANK_ALLOCATIONS[row.allocation](problem, scores, "rank")
    assert isinstance(levels, RankLevels)
    return scores, levels


def error_and_cost(layer: Candidates, choice: Decomposition | None) -> tuple[float, int]:
    if choice is None:
        return 0.0, layer.kept
    spectrum = next(s for s in layer.spectra if (s.groups, s.folding) == (choice.groups, choice.folding))
    return float(spectrum.errors()[choice.rank - 1]), choice.rank * spectrum.per_rank


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("method", SAME)
@pytest.mark.parametrize("name", ["mlp", "convnet"])
def test_the_same_decomposition(name: str, method: str, ratio: str) -> None:
    theirs, arrays = lowrank_golden(name), golden(name)
    cell = f"{method}/{ratio}/"
    pruned = prune_to(name, method, int(theirs[cell + "size"]))
    assert decompositions(pruned) == theirs[cell + "decomposition"].tolist()
    assert abs(pruned.size - int(theirs[cell + "size"])) <= 1  # one entry of a factor may round to zero
    assert pruned.flops == pytest.approx(int(theirs[cell + "true_flops"]), abs=1)
    original = golden_network(name, arrays).requires_grad_(False)
    pruned.network.requires_grad_(False)
    for layer, wanted in zip(pruned.layers, theirs[cell + "rel_err_op"], strict=True):
        if np.isnan(wanted):
            continue
        error = original.get_submodule(layer.name).weight - pruned.network.get_submodule(layer.name).weight
        norm = torch.linalg.matrix_norm(original.get_submodule(layer.name).weight.flatten(1), 2)
        if pruned.structure[0]["folding"] == 0:
            assert float(torch.linalg.matrix_norm(error.flatten(1), 2) / norm) == pytest.approx(wanted, rel=1e-3)
        weight = theirs.get(f"{cell}weight/{layer.name}")
        if weight is not None:
            ours = pruned.network.get_submodule(layer.name).weight.detach().numpy()
            assert np.abs(ours - weight.reshape(ours.shape)).max() <= 2e-5 * np.abs(weight).max()
    with torch.no_grad():
        logits = pruned.network(torch.from_numpy(arrays["data/test_x"][:64])).numpy()
    assert np.abs(logits - theirs[cell + "logits"]).max() <= 5e-4 * max(1.0, np.abs(theirs[cell + "logits"]).max())


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("method", OPTIMAL)
@pytest.mark.parametrize("name", ["mlp", "convnet"])
def test_the_largest_error_is_never_above_that_of_the_references_search(name: str, method: str, ratio: str) -> None:
    golden_choices = lowrank_golden(name)[f"{method}/{ratio}/decomposition"].tolist()
    scores, levels = candidates(name, method)
    theirs = [None if rank < 0 else Decomposition(rank, groups, folding) for rank, groups, folding in golden_choices]
    ours = levels.fill(sum(error_and_cost(layer, choice)[1] for layer, choice in zip(scores, theirs, strict=True)))
    (error, cost), (their_error, their_cost) = (
        (max(pair[0] for pair in pairs), sum(pair[1] for pair in pairs))
        for pairs in (
            [error_and_cost(layer, choice) for layer, choice in zip(scores, choices, strict=True)]  # type: ignore[arg-type]
            for choices in (ours, theirs)
        )
    )
    assert cost <= their_cost
    assert error <= their_error * (1 + 1e-9)


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("name", ["mlp", "convnet"])
def test_groups_of_the_same_fraction_are_the_best_at_each_layers_share(name: str, ratio: str) -> None:
    """With what each layer was given by the reference, ours has at most its error in that layer."""
    golden_choices = lowrank_golden(name)[f"ALDSNetOptK/{ratio}/decomposition"].tolist()
    scores, levels = candidates(name, "ALDSNetOptK")
    for index, (rank, groups, folding) in enumerate(golden_choices):
        if rank < 0:
            continue
        error, cost = error_and_cost(scores[index], Decomposition(rank, groups, folding))
        seen = [levels.choose(level)[index] for level in range(levels.count)]
        affordable = [pair for pair in (error_and_cost(scores[index], c) for c in seen) if pair[1] <= cost]  # type: ignore[arg-type]
        assert min(pair[0] for pair in affordable) <= error * (1 + 1e-9)


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("method", ["MessiNet", "MessiNet5"])
@pytest.mark.parametrize("name", ["mlp", "convnet"])
def test_clusters_are_as_many_and_as_good(name: str, method: str, ratio: str) -> None:
    theirs, cell = lowrank_golden(name), f"{method}/{ratio}/"
    original = golden_network(name, golden(name))
    errors = []
    for seed in range(6):
        pruned = prune_to(name, method, int(theirs[cell + "size"]), seed)
        if not seed:
            assert decompositions(pruned) == theirs[cell + "decomposition"].tolist()
        worst = 0.0
        for entry in pruned.structure:
            weight = original.get_submodule(entry["layer"]).weight.detach().flatten(1)
            error = weight - pruned.network.get_submodule(entry["layer"]).weight.detach().flatten(1)
            norms = [float(torch.linalg.matrix_norm(matrix, 2)) for matrix in (error, weight)]
            worst = max(worst, norms[0] / norms[1])
        errors.append(worst)
    golden_errors = theirs[cell + "max_rel_err_op_seeds"].astype(float)
    slack = 4 * float(np.hypot(np.std(errors, ddof=1) / 6**0.5, golden_errors.std(ddof=1) / golden_errors.size**0.5))
    assert np.mean(errors) <= golden_errors.mean() + slack + 0.02


def test_the_mean_counts_once_in_the_bias(caplog: pytest.LogCaptureFixture) -> None:
    """The reference adds the layer's bias to a mean that holds it; by default outputs stay centred where they were."""
    arrays, x = golden("mlp"), torch.from_numpy(golden("mlp")["data/calib_x"])
    network = golden_network("mlp", arrays)
    with caplog.at_level(logging.ERROR):
        ours, theirs = (prune_to("mlp", "PCANet", 2268, rules=rules) for rules in ("paper", "reference"))
    layer = network.get_submodule("fc1")
    with torch.no_grad():
        wanted = layer(x).mean(0)
        assert torch.allclose(ours.network.get_submodule("fc1")(x).mean(0), wanted, atol=1e-4)
        assert float((theirs.network.get_submodule("fc1")(x).mean(0) - wanted).abs().max()) > 0.01
    assert isinstance(ours.network, nn.Module)
