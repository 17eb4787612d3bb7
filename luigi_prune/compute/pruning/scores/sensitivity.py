"""Sensitivities of SiPP (arXiv 1910.05422) and PFP (arXiv 1911.07412): the largest share that a weight has in a sum.

For a filter i, an entry j of it and a patch a of the layer's input, split by sign into halves that are not negative,
the share is g_ij = w_ij a_j / sum_k w_ik a_k over the weights of the same sign. The sensitivity of a weight is the
largest share over samples of the mean (SiPP) or the maximum (its sampling variants, PFP) over patches.

Both are products of matrices. With r_i = 1 / sum_k w_ik a_k, the mean of g_ij over patches is w_ij times an ordinary
product of r and a; the maximum is w_ij max(r_i a_j), which is 2 to the maximum of log2 r_i + log2 a_j: a product where
+ replaces x and max replaces +, which `torch.cdist` computes as a distance in the maximum norm, in vector registers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from luigi_prune.compute.pruning.layers import Layer
from luigi_prune.compute.pruning.patches import patches, visit_inputs
from luigi_prune.compute.pruning.protocol import Problem, Scores

MEMORY = 32 * 2**20  # bytes of patches held at a time, and of what is computed from them
BLOCK = 2**18  # bytes of patches that one product of the maximum kind reads: they should fit a core's cache
EPSILON = torch.finfo(torch.float32).eps  # sums at most this large have no shares
FLOOR = 64.0  # log2 of what counts as zero, below 1, and the shift that makes logarithms positive


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
    best = [torch.zeros_like(w) for w in (weights if by_mean else split)]

    def visit(index: int, value: Tensor, start: int) -> None:
        layer, w = problem.layers[index], split[index]
        halves = [value.clamp_min(0), (-value).clamp_min(0)] if bool((value < 0).any()) else [value]
        for half in halves:
            if by_mean:
                _grow_mean(best[index], layer, half, w)
            else:
                _grow_max(best[index], layer, half, w)

    visit_inputs(problem, visit)
    found = []
    for layer, w, most in zip(problem.layers, weights, best, strict=True):
        if not by_mean:
            most = torch.where(w > 0, most[: len(w)], most[len(w) :])
        found.append((most * w.abs()).clamp_max(1.0).reshape(layer.weight.shape))
    return found


def _reciprocals(w: Tensor, patch: Tensor) -> Tensor:
    """Return 1 over each sum of a sign's products, 0 where that sum is nearly 0: (samples, 2 filters, patches)."""
    sums = w @ patch
    return torch.where(sums > EPSILON, 1 / sums, torch.zeros_like(sums))


def _grow_mean(best: Tensor, layer: Layer, value: Tensor, w: Tensor) -> None:
    """Raise `best` (filters, entries) to the largest mean of a_j r_i over a sample's patches, r by the sign."""
    count = len(best)
    if not value.is_cuda and value.dim() == 3:  # a linear layer: one patch per sample, no mean to take
        both = torch.zeros_like(w)
        _grow_max(both, layer, value, w)
        torch.maximum(best, torch.where(w[:count] > 0, both[:count], both[count:]), out=best)
        return
    positive = w[:count] > 0
    per_sample = 4 * w.numel()
    for piece in patches(layer, value, MEMORY):
        for part in piece.split(max(1, MEMORY // per_sample)):
            mean = _reciprocals(w, part) @ part.transpose(1, 2)
            mean /= part.shape[2]
            chosen = torch.where(positive, mean[:, :count], mean[:, count:])
            torch.maximum(best, chosen.amax(0), out=best)


def _grow_max(best: Tensor, layer: Layer, value: Tensor, w: Tensor) -> None:
    """Raise `best` (2 filters, entries) to the largest a_j r_i over all samples and patches."""
    for piece in patches(layer, value, MEMORY):
        r = _reciprocals(w, piece).transpose(0, 1).flatten(1)
        a = piece.transpose(0, 1).flatten(1)
        width = max(16, BLOCK // (4 * len(a))) if not a.is_cuda else a.shape[1]
        for rows, columns in zip(_logarithms(r, width), _logarithms(a, width), strict=True):
            product = torch.cdist(rows, -columns, p=float("inf"))
            raised = torch.exp2(product - 2 * FLOOR)
            # Where one factor is zero, the sum is at most the other's logarithm above the floor.
            least = 2.0 ** (1 - FLOOR) * torch.maximum(r.amax(), a.amax())
            torch.maximum(best, raised.masked_fill_(raised <= least, 0), out=best)


def _logarithms(value: Tensor, width: int) -> list[Tensor]:
    """Return log2 of a matrix that is not negative, raised to be not negative, zero for zeros, in blocks of columns."""
    return [part.contiguous() for part in torch.log2(value).clamp_min_(-FLOOR).add_(FLOOR).split(width, dim=1)]
