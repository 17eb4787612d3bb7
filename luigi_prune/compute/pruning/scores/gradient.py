"""Scores from gradients of the loss on the calibration data."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from luigi_prune.compute.pruning.problem.batches import merge_for_gradients
from luigi_prune.compute.pruning.problem.layers import evaluating
from luigi_prune.compute.pruning.problem.records import Batches, Loss, Problem, Scores


def connection(problem: Problem) -> Scores:
    """Return |gradient x weight| of every weight, the mean over batches weighted by their sizes (SNIP, 1810.02340).

    That is the mean over samples, both for losses that average over a batch and for losses that sum over it.
    """
    weights = [layer.weight for layer in problem.layers]
    needs = [weight.requires_grad for weight in weights]
    total: list[Tensor] = [torch.zeros_like(weight) for weight in weights]
    try:
        for weight in weights:
            weight.requires_grad_(True)
        with torch.enable_grad(), evaluating(problem.network):
            for loss in _losses(problem):
                gradients = torch.autograd.grad(loss, weights, allow_unused=True)
                for mean, gradient in zip(total, gradients, strict=True):
                    if gradient is not None:
                        mean += gradient
    finally:
        for weight, needed in zip(weights, needs, strict=True):
            weight.requires_grad_(needed)
    return [(gradient * weight).abs().detach().float() for gradient, weight in zip(total, weights, strict=True)]


def _losses(problem: Problem) -> Iterator[Tensor]:
    """Yield losses whose sum is the mean loss. The network runs on merged batches, the loss on the original ones.

    A loss may normalise within a batch (class weights), so merging would change it.
    """
    assert problem.loss is not None
    original = iter(problem.batches)
    samples = sum(len(inputs) for inputs, _ in problem.batches)
    is_sum: bool | None = None
    for inputs, targets in merge_for_gradients(problem.batches, problem.outputs):
        group: Batches = []
        while sum(len(part) for part, _ in group) < len(inputs):
            group.append(next(original))
        outputs = problem.network(inputs)
        if isinstance(outputs, Tensor) and outputs.dim() and len(outputs) == len(targets) == len(inputs):
            predictions = list(outputs.split([len(part) for part, _ in group]))
            if is_sum is None and len(inputs) > 1:
                is_sum = _sums_over_batch(problem.loss, outputs.detach(), targets)
        else:  # outputs that cannot be split by sample
            predictions = [problem.network(part) for part, _ in group]
        parts = [problem.loss(output, target) for output, (_, target) in zip(predictions, group, strict=True)]
        sizes = [1 if is_sum is True else len(part) for part, _ in group]
        yield torch.stack([part * (size / samples) for part, size in zip(parts, sizes, strict=True)]).sum()


def _sums_over_batch(loss: Loss, outputs: Tensor, targets: Tensor) -> bool:
    """Return whether the loss of a batch is the sum over its samples rather than the mean."""
    first = max(1, len(outputs) // 3)
    total = float(loss(outputs, targets))
    one, other = float(loss(outputs[:first], targets[:first])), float(loss(outputs[first:], targets[first:]))
    mean = (first * one + (len(outputs) - first) * other) / len(outputs)
    return math.isclose(total, one + other, rel_tol=1e-4) and not math.isclose(total, mean, rel_tol=1e-4)
