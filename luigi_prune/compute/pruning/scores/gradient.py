"""Scores from gradients of the loss on the calibration data."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from luigi_prune.compute.network_inputs import call_on_copy, sample_count, select, split_output
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
    samples = sum(sample_count(inputs) for inputs, _ in problem.batches)
    is_sum: bool | None = None
    for inputs, targets in merge_for_gradients(problem.batches, problem.outputs):
        group: Batches = []
        while sum(sample_count(part) for part, _ in group) < sample_count(inputs):
            group.append(next(original))
        counts = [sample_count(part) for part, _ in group]
        outputs = call_on_copy(problem.network, inputs)
        predictions = split_output(outputs, counts)
        if predictions is None:  # outputs that cannot be split by sample
            predictions = [call_on_copy(problem.network, part) for part, _ in group]
        elif is_sum is None and sum(counts) > 1:
            is_sum = _sums_over_batch(problem.loss, outputs, targets, sum(counts))
        parts = [problem.loss(output, target) for output, (_, target) in zip(predictions, group, strict=True)]
        sizes = [1] * len(counts) if is_sum is True else counts
        yield torch.stack([part * (size / samples) for part, size in zip(parts, sizes, strict=True)]).sum()


@torch.no_grad()
def _sums_over_batch(loss: Loss, outputs: Any, targets: Any, count: int) -> bool:
    """Return whether the loss of a batch of `count` samples is the sum over them rather than the mean."""
    first = max(1, count // 3)
    total = float(loss(outputs, targets))
    pieces = split_output(outputs, [first, count - first])
    assert pieces is not None
    rows = slice(0, first), slice(first, None)
    one, other = (float(loss(part, select(targets, each))) for part, each in zip(pieces, rows, strict=True))
    mean = (first * one + (count - first) * other) / count
    return math.isclose(total, one + other, rel_tol=1e-4) and not math.isclose(total, mean, rel_tol=1e-4)
