"""What is known of a layer's chunks before their singular values are computed."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from luigi_prune.compute.pruning.lowrank.factors import LARGE, gram
from luigi_prune.compute.pruning.lowrank.foldings import fold


def least_dropped(lower: Tensor) -> np.ndarray:
    """Return what the largest dropped singular value is at least, at ranks 1, 2, ... n, by a Gram matrix (n, n).

    The j largest eigenvalues sum up to at most sqrt(j m2), where m2 is the sum of the squares of all; what is left of
    the trace m1 is spread over n - j. Only the lower triangle is read.
    """
    size, strict = len(lower), lower.tril(-1)
    diagonal = lower.diagonal().double()
    first = float(diagonal.sum())
    second = float(diagonal.square().sum()) + 2 * float(torch.linalg.vector_norm(strict, dtype=torch.float64)) ** 2
    ranks = np.arange(1, size)
    least = (first - np.sqrt(ranks * second)) / (size - ranks)
    later = np.maximum.accumulate(least[::-1])[::-1]  # errors never grow with the rank
    return np.append(np.sqrt(later.clip(min=0)), 0.0) * (1 - 1e-6)  # single precision must not make it too large


def first_grams(weight: Tensor, folding: int, wanted: list[int]) -> dict[int, Tensor]:
    """Return for every number of groups the Gram matrix of the first chunk's shorter side, its lower triangle.

    Few are computed: where the rows are the shorter side, that of a chunk is the sum of those of its parts; where the
    columns are, that of a part is the corner of its chunk's.
    """
    whole = fold(weight, folding)
    single, rows = weight.dtype != torch.float64, len(whole)
    found: dict[int, Tensor] = {}
    held, last = whole.new_zeros(()), 0
    for k in sorted((k for k in wanted if rows <= whole.shape[1] // k), reverse=True):
        end = whole.shape[1] // k
        part = whole[:, last:end]
        found[k] = held = held + gram((part.float() if single and rows >= LARGE else part.double())[None])[0]
        last = end
    corner = None
    for k in sorted(k for k in wanted if rows > whole.shape[1] // k):
        size = whole.shape[1] // k
        exact = not (single and size >= LARGE)
        if corner is None or (exact and corner.dtype != torch.float64):
            part = whole[:, :size]
            corner = gram((part.double() if exact else part.float()).T[None])[0]
        found[k] = corner[:size, :size]
    return found
