"""Scores that need no data: weights, norms of filters, constants and random numbers."""

from __future__ import annotations

import torch

from luigi_prune.compute.pruning.problem.records import Problem, Scores


def absolute(problem: Problem) -> Scores:
    """Return |w| of every weight (global magnitude pruning, arXiv 1506.02626)."""
    return [layer.weight.detach().abs() for layer in problem.layers]


def shuffled(problem: Problem) -> Scores:
    """Return the |w| of each layer in random order: a threshold keeps as many per layer as it does of magnitudes.

    Entries that are pruned already keep their places. The shuffled-mask control of Su et al. 2020 (arXiv 2009.11094).
    """
    scores = []
    for layer, magnitudes in zip(problem.layers, absolute(problem), strict=True):
        alive = problem.masks[layer.weight_name].to(magnitudes.device)
        order = torch.randperm(int(alive.sum()), generator=problem.generator("shuffled_magnitude", layer.name))
        score = magnitudes.clone()
        score[alive] = magnitudes[alive][order.to(magnitudes.device)]
        scores.append(score)
    return scores


def constant(problem: Problem) -> Scores:
    """Return 1 for every weight: the selection alone decides."""
    return [torch.ones_like(layer.weight.detach()) for layer in problem.layers]


def squared(problem: Problem) -> Scores:
    """Return w^2 of every weight (arXiv 1910.05422, baseline)."""
    return [layer.weight.detach().square() for layer in problem.layers]


def absolute_and_squared(problem: Problem) -> Scores:
    """Return (|w| + w^2) / 2 of every weight (arXiv 1910.05422, baseline)."""
    return [(layer.weight.detach().abs() + layer.weight.detach().square()) / 2 for layer in problem.layers]


def filter_l1(problem: Problem) -> Scores:
    """Return the l1 norm of every filter (arXiv 1608.08710)."""
    return [layer.weight.detach().flatten(1).abs().sum(1) for layer in problem.layers]


def filter_l2(problem: Problem) -> Scores:
    """Return the l2 norm of every filter (arXiv 1808.06866)."""
    return [layer.weight.detach().float().flatten(1).norm(dim=1) for layer in problem.layers]


def random_channel(problem: Problem) -> Scores:
    """Return a random number in [0, 1) for every input channel."""
    scores = []
    for layer in problem.layers:
        generator = problem.generator("random_channel", layer.name)
        scores.append(torch.rand(layer.weight.shape[1], generator=generator).to(layer.weight.device))
    return scores
