"""Operator norms, from a few products with a Gram matrix."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from luigi_prune.compute.pruning.lowrank.factors import LARGE, eigenvalues, gram, short_side

DIRECT = 128  # rows of a Gram matrix up to which all eigenvalues are as cheap
STEPS = 120
CHECKED = 6  # steps between two looks at what has been reached
RESIDUAL = 2e-5  # relative to the eigenvalue: the norm is off by half of it at most, in general by its square


def operator_norm(matrix: Tensor) -> float:
    """Return the largest singular value of a matrix, 0 where it is empty."""
    if not matrix.numel():
        return 0.0
    rows = short_side(matrix[None])
    large = rows.shape[1] >= LARGE and matrix.dtype != torch.float64
    return largest_eigenvalue(gram(rows.float() if large else rows.double())[0]) ** 0.5


def largest_eigenvalue(lower: Tensor) -> float:
    """Return the largest eigenvalue of a Gram matrix (n, n), of which the lower triangle is read.

    Large ones by Lanczos' method with full orthogonalisation, which stops when the residual says that it is there.
    """
    size = len(lower)
    if size > DIRECT:
        whole = lower.tril() + lower.tril(-1).T
        start = torch.randn(size, generator=torch.Generator().manual_seed(0)).to(whole)
        found = _lanczos(whole, start / torch.linalg.vector_norm(start))
        if found is not None:
            return found
    return float(eigenvalues(lower[None])[0, 0])


def _lanczos(matrix: Tensor, start: Tensor) -> float | None:
    """Return the largest eigenvalue of a symmetric matrix, None where it is not reached."""
    seen = matrix.new_empty(STEPS, len(matrix))
    diagonal, beside = torch.zeros(2, STEPS, dtype=torch.float64)  # of the tridiagonal matrix that stands for it
    vector = start
    for step in range(STEPS):
        seen[step] = vector
        product, before = matrix @ vector, seen[: step + 1]
        diagonal[step] = product @ vector
        for _ in range(2):  # twice is enough
            product = product - before.T @ (before @ product)
        beside[step] = length = float(torch.linalg.vector_norm(product))
        if step % CHECKED == CHECKED - 1 or length <= RESIDUAL * diagonal[0]:
            inner = torch.diag(beside[:step], 1)  # not by numpy, whose threads would get in the way of these
            values, vectors = torch.linalg.eigh(torch.diag(diagonal[: step + 1]) + inner + inner.T)
            if length * abs(float(vectors[-1, -1])) <= RESIDUAL * float(values[-1]):
                return float(values[-1])
            if not math.isfinite(length) or length == 0:
                return None
        vector = product / length
    return None
