"""Scores from gradients of the loss on the calibration data."""

from __future__ import annotations

import torch
from torch import Tensor

from luigi_prune.compute.pruning.layers import evaluating
from luigi_prune.compute.pruning.protocol import Problem, Scores
from luigi_prune.compute.pruning.reference_rules import merge_batches


def connection(problem: Problem) -> Scores:
    """Return |gradient x weight| of every weight, the mean over samples of a loss that is a mean (SNIP, 1810.02340)."""
    assert problem.loss is not None
    weights = [layer.weight for layer in problem.layers]
    needs = [weight.requires_grad for weight in weights]
    batches = merge_batches(problem.batches)
    samples = sum(len(inputs) for inputs, _ in batches)
    total: list[Tensor] = [torch.zeros_like(weight) for weight in weights]
    try:
        for weight in weights:
            weight.requires_grad_(True)
        with torch.enable_grad(), evaluating(problem.network):
            for inputs, targets in batches:
                loss = problem.loss(problem.network(inputs), targets)
                found = torch.autograd.grad(loss, weights, allow_unused=True)
                for mean, gradient in zip(total, found, strict=True):
                    if gradient is not None:
                        mean += gradient * (len(inputs) / samples)
    finally:
        for weight, needed in zip(weights, needs, strict=True):
            weight.requires_grad_(needed)
    return [(gradient * weight).abs().detach().float() for gradient, weight in zip(total, weights, strict=True)]
