"""Operator norms, from a few products with a Gram matrix."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from luigi_prune.compute.pruning.low_rank.factors import LARGE, eigenvalues, gram, short_side

DIRECT = 128  # rows of a Gram matrix up to which computing all eigenvalues is as cheap
STEPS = 120
CHECK_EVERY = 6  # steps between two convergence checks
RESIDUAL = 2e-5  # relative to the eigenvalue: the norm's relative error is at most half of it, usually its square


def operator_norm(matrix: Tensor) -> float:
    """Return the largest singular value of a matrix, 0 if it is empty."""
    if not matrix.numel():
        return 0.0
    return largest_eigenvalue(gram_of(matrix)) ** 0.5


def gram_of(matrix: Tensor) -> Tensor:
    """Return the lower triangle of the Gram matrix of the shorter side, in single precision if it is large."""
    rows = short_side(matrix[None])
    large = rows.shape[1] >= LARGE and matrix.dtype != torch.float64
    return gram(rows.float() if large else rows.double())[0]


def largest_eigenvalue(lower: Tensor) -> float:
    """Return the largest eigenvalue of a Gram matrix (n, n), of which the lower triangle is read.

    For large matrices by Lanczos' method with full orthogonalisation, which stops when the residual is small enough.
    """
    size = len(lower)
    if size > DIRECT:
        matrix = lower.tril() + lower.tril(-1).T
        start = torch.randn(size, generator=torch.Generator().manual_seed(0)).to(matrix)
        eigenvalue = _lanczos(matrix, start / torch.linalg.vector_norm(start))
        if eigenvalue is not None:
            return eigenvalue
    return float(eigenvalues(lower[None])[0, 0])


def _lanczos(matrix: Tensor, start: Tensor) -> float | None:
    """Return the largest eigenvalue of a symmetric matrix, None if Lanczos' method does not converge."""
    basis = matrix.new_empty(STEPS, len(matrix))
    diagonal, off_diagonal = torch.zeros(2, STEPS, dtype=torch.float64)  # of the tridiagonal projection of the matrix
    vector = start
    for step in range(STEPS):
        basis[step] = vector
        product, before = matrix @ vector, basis[: step + 1]
        diagonal[step] = product @ vector
        for _ in range(2):  # twice is enough
            product = product - before.T @ (before @ product)
        off_diagonal[step] = length = float(torch.linalg.vector_norm(product))
        if step % CHECK_EVERY == CHECK_EVERY - 1 or length <= RESIDUAL * diagonal[0]:
            inner = torch.diag(off_diagonal[:step], 1)  # not by numpy, whose threads would compete with torch's
            values, vectors = torch.linalg.eigh(torch.diag(diagonal[: step + 1]) + inner + inner.T)
            if length * abs(float(vectors[-1, -1])) <= RESIDUAL * float(values[-1]):
                return float(values[-1])
            if not math.isfinite(length) or length == 0:
                return None
        vector = product / length
    return None
