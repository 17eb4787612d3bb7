"""Sensitivities of SiPP (arXiv 1910.05422) and PFP (arXiv 1911.07412): the largest share that a weight has in a sum.

For a filter i, an entry j of it and a patch a of the layer's input, split by sign into halves that are not negative,
the share is g_ij = w_ij a_j / sum_k w_ik a_k over the weights of the same sign. The sensitivity of a weight is the
largest share over samples of the mean (SiPP) or the maximum (its sampling variants, PFP) over patches.

Both are products of matrices. With r_i = 1 / sum_k w_ik a_k, the mean of g_ij over patches is w_ij times an ordinary
product of r and a; the maximum is w_ij max(r_i a_j), a product where max replaces the sum. There is no library for it:
pieces of r and a are multiplied out, small enough to stay in a core's cache, and reduced at once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from luigi_prune.compute.pruning.layers import Layer
from luigi_prune.compute.pruning.patches import patches, visit_inputs
from luigi_prune.compute.pruning.protocol import Problem, Scores

MEMORY = 32 * 2**20  # bytes of patches held at a time, and of what is computed from them
COLUMNS = 512  # patches whose products are reduced at once
PRODUCTS = 2**19  # numbers multiplied out at a time: about what a core's cache holds
EPSILON = torch.finfo(torch.float32).eps  # sums at most this large have no shares


def weight_mean(problem: Problem) -> Scores:
    """Return the sensitivity of every weight, shares averaged over patches."""
    return _sensitivities(problem, by_mean=True)


def weight_max(problem: Problem) -> Scores:
    """Return the sensitivity of every weight, the largest share over patches, with the weight's sign."""
    return [
        s * layer.weight.detach().sign().float()
        for s, layer in zip(_sensitivities(problem, by_mean=False), problem.layers, strict=True)
    ]


def channel_max(problem: Problem) -> Scores:
    """Return per input channel the largest sensitivity of a weight that reads it."""
    return [s.transpose(0, 1).flatten(1).amax(1) for s in _sensitivities(problem, by_mean=False)]


def _sensitivities(problem: Problem, *, by_mean: bool) -> list[Tensor]:
    weights = [layer.weight.detach().float().flatten(1) for layer in problem.layers]
    split = [torch.cat([w.clamp_min(0), (-w).clamp_min(0)]) for w in weights]  # (2 filters, entries)
    best = [torch.zeros_like(w) for w in split]

    def visit(index: int, value: Tensor, start: int) -> None:
        layer, w = problem.layers[index], split[index]
        halves = [value.clamp_min(0), (-value).clamp_min(0)] if bool((value < 0).any()) else [value]
        for half in halves:
            (_grow_mean if by_mean else _grow_max)(best[index], layer, half, w)

    visit_inputs(problem, visit)
    found = []
    for layer, w, most in zip(problem.layers, weights, best, strict=True):
        largest = torch.where(w > 0, most[: len(w)], most[len(w) :])
        found.append((largest * w.abs()).clamp_max(1.0).reshape(layer.weight.shape))
    return found


def _reciprocals(w: Tensor, patch: Tensor) -> Tensor:
    """Return 1 over each sum of a sign's products, 0 where that sum is nearly 0: (samples, 2 filters, patches)."""
    sums = w @ patch
    return torch.where(sums > EPSILON, 1 / sums, torch.zeros_like(sums))


def _grow_mean(best: Tensor, layer: Layer, value: Tensor, w: Tensor) -> None:
    """Raise `best` (2 filters, entries) to the largest mean of a_j r_i over a sample's patches."""
    if value.dim() == 3:  # a linear layer: one patch per sample, no mean to take
        _grow_max(best, layer, value, w)
        return
    for piece in patches(layer, value, MEMORY):
        for part in piece.split(max(1, MEMORY // (4 * w.numel()))):
            mean = (_reciprocals(w, part) / part.shape[2]) @ part.transpose(1, 2)
            torch.maximum(best, mean.amax(0), out=best)


def _grow_max(best: Tensor, layer: Layer, value: Tensor, w: Tensor) -> None:
    """Raise `best` (2 filters, entries) to the largest a_j r_i over all samples and patches."""
    products = torch.empty(0, device=best.device)
    for piece in patches(layer, value, MEMORY):
        r = _reciprocals(w, piece).transpose(0, 1).flatten(1)
        a = piece.transpose(0, 1).flatten(1)
        for some_r, some_a in zip(r.split(COLUMNS, 1), a.split(COLUMNS, 1), strict=True):
            columns = some_a.contiguous()
            rows = max(1, PRODUCTS // columns.numel())
            if products.numel() < min(rows, len(r)) * columns.numel():
                products = torch.empty(min(rows, len(r)) * columns.numel(), device=best.device)
            for first, part in zip(range(0, len(r), rows), some_r.split(rows), strict=True):
                room = products[: len(part) * columns.numel()].view(len(part), *columns.shape)
                torch.mul(part[:, None], columns, out=room)
                raised = best[first : first + rows]
                torch.maximum(raised, room.amax(2), out=raised)
