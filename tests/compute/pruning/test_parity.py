"""Scores, allocations, masks, sizes and outputs against what the reference computed, by its rules."""

from __future__ import annotations

import copy
import dataclasses
import functools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from luigi_prune import registry
from luigi_prune.compute.pruning.allocations.by_score import ALLOCATIONS
from luigi_prune.compute.pruning.allocations.sampling_error import confidence
from luigi_prune.compute.pruning.engine.budget_search import level_at_budget
from luigi_prune.compute.pruning.problem.records import Mixed, Scores
from luigi_prune.compute.pruning.scores import SCORES
from luigi_prune.compute.pruning.scores.reconstruction import rank_channels
from tests.compute.pruning.agreement import (
    EXACT,
    NETWORKS,
    RATIOS,
    arrays_of,
    compare_exact,
    reference_problem,
)


@functools.lru_cache
def scores_of(network: str, score: str) -> Scores:
    with torch.no_grad():
        return SCORES[score](reference_problem(network))


@pytest.mark.parametrize(
    ("method", "key"),
    [("SiPPNet", "sensitivity"), ("SiPPNetRand", "sensitivity"), ("PFPNet", "sensitivity_in")],
)
@pytest.mark.parametrize("network", NETWORKS)
def test_sensitivities_are_equal(network: str, method: str, key: str) -> None:
    found = scores_of(network, registry.METHODS[method].score)
    for layer, score in zip(reference_problem(network).layers, found, strict=True):
        theirs = arrays_of(network)[f"{method}/scores/{layer.name}/{key}"]
        assert np.allclose(score.abs().numpy(), theirs, rtol=1e-5, atol=0), layer.name


@pytest.mark.parametrize("network", NETWORKS)
def test_connection_scores_are_equal_but_for_cancellation(network: str) -> None:
    for layer, score in zip(reference_problem(network).layers, scores_of(network, "connection"), strict=True):
        theirs = arrays_of(network)[f"SnipNet/scores/{layer.name}/sensitivity"]
        assert np.allclose(score.numpy(), theirs, rtol=1e-4, atol=1e-6 * theirs.max()), layer.name


@pytest.mark.parametrize("network", NETWORKS)
def test_greedy_ranks_of_the_same_features_are_equal(network: str) -> None:
    for layer in reference_problem(network).layers:
        features = torch.from_numpy(arrays_of(network)[f"ThiNet/scores/{layer.name}/_features"])
        theirs = arrays_of(network)[f"ThiNet/scores/{layer.name}/sensitivity_in"]
        ours = rank_channels(features, torch.ones(len(features), dtype=torch.bool), first_is_best=True).numpy()
        distinct = features.square().sum(1).numpy() > 0  # channels that add nothing are all alike
        assert np.array_equal(ours[distinct].argsort(), theirs[distinct].argsort())
        paper = rank_channels(features, torch.ones(len(features), dtype=torch.bool), first_is_best=False).numpy()
        assert np.array_equal(paper + ours, np.full(len(ours), len(ours) + 1))


@pytest.mark.parametrize("network", NETWORKS)
def test_sampling_allocation_at_the_same_budget(network: str) -> None:
    arrays, problem = arrays_of(network), reference_problem(network)
    scores = scores_of(network, "weight_sensitivity_max")
    pairs = [torch.stack([s.clamp_min(0), (-s).clamp_min(0)], 1).flatten(2).sum(2) for s in scores]
    ours = [p.double() * confidence(problem, layer) for p, layer in zip(pairs, problem.layers, strict=True)]
    # The reference lists a layer's positive halves first, then the negative ones.
    alpha = torch.cat([each.T.flatten() for each in ours]).numpy()
    assert np.allclose(alpha, arrays["SiPPNetRand/allocator/coeffs"], rtol=1e-5)
    levels = ALLOCATIONS["filter_error"](problem, scores, "weight")
    budget = min(int(arrays["SiPPNetRand/0.8/budget"]), levels.count - 2)
    chosen = levels.choose(budget)
    counts = torch.cat([choice.T.flatten() for choice in chosen]).numpy()  # type: ignore[union-attr]
    assert np.abs(counts - arrays["SiPPNetRand/allocator/allocation"]).max() <= 1


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("method", ["PFPNet", "PFPNetRand", "PFPNetTop", "SoftNet"])
@pytest.mark.parametrize("network", NETWORKS)
def test_unit_allocation_at_the_same_budget(network: str, method: str, ratio: str) -> None:
    arrays, row = arrays_of(network), registry.METHODS[method]
    if f"{method}/{ratio}/allocation" not in arrays:
        pytest.skip("the reference fails here")
    problem, scores = reference_problem(network), scores_of(network, row.score)
    levels = ALLOCATIONS[row.allocation](problem, scores, row.granularity)
    level = level_at_budget(levels.count, levels.cost, int(arrays[f"{method}/{ratio}/budget"]))
    near = []
    for at in (level, min(level + 1, levels.count - 1)):
        for layer, choice in zip(problem.layers, levels.choose(at), strict=True):
            if isinstance(choice, Mixed):
                near.append([int(choice.top), int(choice.sampled)])
            else:
                near.append([layer.weight.shape[1] if choice is None else int(choice)])  # type: ignore[arg-type]
    theirs = arrays[f"{method}/{ratio}/allocation"].reshape(len(problem.layers), -1)
    seen = np.array([sum(pair) for pair in near]).reshape(2, -1)
    alive = [int((score > 0).sum()) for score in scores] if row.granularity == "channel" else seen[1]
    assert (np.minimum(seen[0], alive) <= theirs.sum(1)).all()
    assert (theirs.sum(1) <= seen[1]).all()
    assert (seen[0] != theirs.sum(1)).sum() <= 2


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("method", EXACT)
@pytest.mark.parametrize("network", NETWORKS)
def test_masks_outputs_and_multiply_adds_at_the_achieved_size(network: str, method: str, ratio: str) -> None:
    cell = compare_exact(network, method, ratio)
    assert cell is not None
    assert cell.masks >= 0.995
    # There the scores of 35 entries are 0 on both sides.
    assert cell.at_budget == (35 if (method, network, ratio) == ("SnipNet", "mlp", "0.8") else 0)
    assert cell.logits <= 0.02
    assert abs(cell.size - cell.reference_size) <= 0.005 * cell.reference_size
    assert abs(cell.flops - cell.reference_flops) <= 0.005 * cell.reference_flops


@pytest.mark.parametrize("sizes", [[4] * 16, [1, 30, 2, 31], [64], [1] * 64])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_connection_scores_do_not_depend_on_batches_or_the_losses_reduction(sizes: list[int], reduction: str) -> None:
    problem = reference_problem("convnet")
    x, y = (torch.cat(parts) for parts in zip(*problem.batches, strict=True))
    x, y = torch.cat([x, x, x]), torch.cat([y, y, y])  # more than run through the network together
    batches = list(zip(x.split(sizes * 3), y.split(sizes * 3), strict=True))
    own = dataclasses.replace(problem, batches=batches, loss=functools.partial(F.cross_entropy, reduction=reduction))
    for ours, wanted in zip(SCORES["connection"](own), scores_of("convnet", "connection"), strict=True):
        assert torch.allclose(ours, wanted, rtol=1e-4, atol=1e-5 * float(wanted.max()))


def test_a_loss_that_normalises_in_a_batch_sees_the_batches_as_given() -> None:
    weight = torch.linspace(0.1, 2, 10)
    problem = dataclasses.replace(reference_problem("mlp"), loss=functools.partial(F.cross_entropy, weight=weight))
    network = copy.deepcopy(problem.network).requires_grad_(True)
    total = [torch.zeros_like(layer.weight) for layer in problem.layers]
    for x, y in problem.batches:
        weights = [network.get_parameter(layer.weight_name) for layer in problem.layers]
        loss = F.cross_entropy(network(x), y, weight=weight)
        for mean, found in zip(total, torch.autograd.grad(loss, weights), strict=True):
            mean += found * len(x) / 64
    for ours, mean, layer in zip(SCORES["connection"](problem), total, problem.layers, strict=True):
        assert torch.allclose(ours, (mean * layer.weight).abs(), rtol=1e-4, atol=1e-6 * float(ours.max()))
