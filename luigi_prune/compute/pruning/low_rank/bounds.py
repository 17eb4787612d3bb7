"""Lower bounds of the singular values of a layer's chunks, cheaper than the singular values themselves."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from luigi_prune.compute.pruning.low_rank.factors import LARGE, gram
from luigi_prune.compute.pruning.low_rank.foldings import fold


def least_dropped(lower: Tensor) -> np.ndarray:
    """Return a lower bound of the largest dropped singular value at ranks 1, 2, ... n, from a Gram matrix (n, n).

    If n eigenvalues have mean m and standard deviation s, the mean of all but the j largest is at least
    m - s sqrt(j / (n - j)). Only the lower triangle is read.
    """
    size, strict = len(lower), lower.tril(-1)
    diagonal = lower.diagonal().double()
    mean = float(diagonal.mean())
    off_diagonal = float(torch.linalg.vector_norm(strict, dtype=torch.float64))
    second = (float(diagonal.square().sum()) + 2 * off_diagonal**2) / size * (1 + 1e-6)  # a margin for single precision
    ranks = np.arange(1, size)
    spread = np.sqrt(max(0.0, second - mean**2))
    least = mean - spread * np.sqrt(ranks / (size - ranks))
    later = np.maximum.accumulate(least[::-1])[::-1]  # errors never grow with the rank
    return np.append(np.sqrt(later.clip(min=0)), 0.0) * (1 - 1e-6)


def first_grams(weight: Tensor, folding: int, group_counts: list[int]) -> dict[int, Tensor]:
    """Return, by number of groups, the lower triangle of the Gram matrix of the first chunk's shorter side.

    Few products are computed: if the rows are the shorter side, a chunk's Gram matrix is the sum of those of its parts;
    if the columns are, the Gram matrix of a part is the corner of its chunk's.
    """
    matrix = fold(weight, folding)
    single, rows = weight.dtype != torch.float64, len(matrix)
    grams: dict[int, Tensor] = {}
    running, start = matrix.new_zeros(()), 0
    for k in sorted((k for k in group_counts if rows <= matrix.shape[1] // k), reverse=True):
        end = matrix.shape[1] // k
        part = matrix[:, start:end]
        grams[k] = running = running + gram((part.float() if single and rows >= LARGE else part.double())[None])[0]
        start = end
    corner = None
    for k in sorted(k for k in group_counts if rows > matrix.shape[1] // k):
        size = matrix.shape[1] // k
        exact = not (single and size >= LARGE)
        if corner is None or (exact and corner.dtype != torch.float64):
            part = matrix[:, :size]
            corner = gram((part.double() if exact else part.float()).T[None])[0]
        grams[k] = corner[:size, :size]
    return grams
