"""Scores from gradients of the loss on the calibration data."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from luigi_prune.compute.pruning.batches import merge_batches
from luigi_prune.compute.pruning.layers import evaluating
from luigi_prune.compute.pruning.protocol import Batches, Loss, Problem, Scores


def connection(problem: Problem) -> Scores:
    """Return |gradient x weight| of every weight, the batches' mean weighed by their sizes (SNIP, 1810.02340).

    That is the mean over samples where the loss is a mean, and also where it is a sum.
    """
    weights = [layer.weight for layer in problem.layers]
    needs = [weight.requires_grad for weight in weights]
    total: list[Tensor] = [torch.zeros_like(weight) for weight in weights]
    try:
        for weight in weights:
            weight.requires_grad_(True)
        with torch.enable_grad(), evaluating(problem.network):
            for loss in _losses(problem):
                found = torch.autograd.grad(loss, weights, allow_unused=True)
                for mean, gradient in zip(total, found, strict=True):
                    if gradient is not None:
                        mean += gradient
    finally:
        for weight, needed in zip(weights, needs, strict=True):
            weight.requires_grad_(needed)
    return [(gradient * weight).abs().detach().float() for gradient, weight in zip(total, weights, strict=True)]


def _losses(problem: Problem) -> Iterator[Tensor]:
    """Yield losses whose sum is the wanted mean. The network sees batches merged, the loss as they were given.

    A loss may normalise within a batch (class weights), so that merging would change it.
    """
    assert problem.loss is not None
    given = iter(problem.batches)
    samples = sum(len(inputs) for inputs, _ in problem.batches)
    adds: bool | None = None
    for inputs, targets in merge_batches(problem.batches):
        group: Batches = []
        while sum(len(part) for part, _ in group) < len(inputs):
            group.append(next(given))
        outputs = problem.network(inputs)
        if isinstance(outputs, Tensor) and outputs.dim() and len(outputs) == len(targets) == len(inputs):
            found = list(outputs.split([len(part) for part, _ in group]))
            if adds is None and len(inputs) > 1:
                adds = _adds_up(problem.loss, outputs.detach(), targets)
        else:  # outputs that cannot be told apart by sample
            found = [problem.network(part) for part, _ in group]
        parts = [problem.loss(own, wanted) for own, (_, wanted) in zip(found, group, strict=True)]
        sizes = [1 if adds is True else len(part) for part, _ in group]
        yield torch.stack([part * (size / samples) for part, size in zip(parts, sizes, strict=True)]).sum()


def _adds_up(loss: Loss, outputs: Tensor, targets: Tensor) -> bool:
    """Return whether the loss of a batch is the sum of its parts' and not their mean."""
    first = max(1, len(outputs) // 3)
    whole = float(loss(outputs, targets))
    one, other = float(loss(outputs[:first], targets[:first])), float(loss(outputs[first:], targets[first:]))
    mean = (first * one + (len(outputs) - first) * other) / len(outputs)
    return math.isclose(whole, one + other, rel_tol=1e-4) and not math.isclose(whole, mean, rel_tol=1e-4)
