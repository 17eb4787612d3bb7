"""At the size that the reference achieved: its ranks, groups, foldings, weights and outputs; never a larger error."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from torch import nn

from luigi_prune.compute.pruning.engine.rules import PAPER
from luigi_prune.compute.pruning.problem.records import Decomposition
from luigi_prune.compute.pruning.torchprune.gradient_propagation import REFERENCE
from tests.compute.pruning.lowrank_agreement import (
    OPTIMAL,
    SAME,
    candidates,
    decompositions,
    error_and_cost,
    lowrank_golden,
    off_weights,
    prune_to,
    true_errors,
    weight_of,
)
from tests.compute.pruning.zoo import golden, golden_network

RATIOS = ("0.8", "0.5", "0.2", "0.1")


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
    off = off_weights(name, method, ratio, pruned)
    assert off is not None
    assert off <= (1e-3 if method == "PCANet" else 2e-5)  # inputs that are always 0 leave PCA's weights undetermined
    if all(choice[2] in (-1, 0) for choice in decompositions(pruned)):
        found = np.array(true_errors(name, pruned))
        wanted = np.nan_to_num(theirs[cell + "rel_err_op"])
        assert found == pytest.approx(wanted, rel=1e-3, abs=1e-6)
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
            weight = weight_of(original, entry["layer"]).flatten(1)
            error = weight - weight_of(pruned.network, entry["layer"]).flatten(1)
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
        ours, theirs = (prune_to("mlp", "PCANet", 2268, rules=rules) for rules in (PAPER, REFERENCE))
    layer = network.get_submodule("fc1")
    with torch.no_grad():
        wanted = layer(x).mean(0)
        assert torch.allclose(ours.network.get_submodule("fc1")(x).mean(0), wanted, atol=1e-4)
        assert float((theirs.network.get_submodule("fc1")(x).mean(0) - wanted).abs().max()) > 0.01
    assert isinstance(ours.network, nn.Module)
