"""Foldings: the four ways to read a weight (f, c, k1, k2) as a matrix, whose factors are the weights of two layers.

Folding 0 is f x (c k1 k2), 1 is (f k1) x (k2 c), 2 is (f k2) x (k1 c), 3 is (f k1 k2) x c (ALDS, arXiv 2107.11442): the
decoder gets the kernel axes that stand beside f, the encoder those beside c. Linear layers have k1 = k2 = 1.
"""

from __future__ import annotations

import math

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

LARGE = 256  # from this size on it pays to compute only the eigenvectors that are wanted

# Per folding, whether the decoder (the rows) gets the first and the second kernel axis.
_DECODER_AXES = {0: (False, False), 1: (True, False), 2: (False, True), 3: (True, True)}


def kernels(size: tuple[int, int], folding: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the kernel sizes of the encoder and of the decoder."""
    first, second = _DECODER_AXES[folding]
    encoder = (1 if first else size[0], 1 if second else size[1])
    decoder = (size[0] if first else 1, size[1] if second else 1)
    return encoder, decoder


def fold(weight: Tensor, folding: int) -> Tensor:
    """Return `weight` (f, c, k1, k2) as a matrix, (f x decoder kernel, c x encoder kernel)."""
    axes = [0, *(axis + 2 for axis in (0, 1) if _DECODER_AXES[folding][axis])]
    columns = [1, *(axis + 2 for axis in (0, 1) if not _DECODER_AXES[folding][axis])]
    rows = math.prod(weight.shape[axis] for axis in axes)
    return weight.permute(*axes, *columns).reshape(rows, -1)


def full_rank(shape: tuple[int, int, int, int], groups: int, folding: int) -> int:
    """Return the largest useful rank per group."""
    f, c, *size = shape
    encoder, decoder = kernels((size[0], size[1]), folding)
    return min(f * math.prod(decoder), c // groups * math.prod(encoder))


def cost_per_rank(shape: tuple[int, int, int, int], groups: int, folding: int) -> int:
    """Return how many weights one more rank in every group costs."""
    f, c, *size = shape
    encoder, decoder = kernels((size[0], size[1]), folding)
    return groups * f * math.prod(decoder) + c * math.prod(encoder)


def fold_chunks(weight: Tensor, folding: int, groups: int) -> Tensor:
    """Return the `groups` chunks of c / groups input channels, each folded: (groups, rows, columns)."""
    return torch.stack([fold(chunk, folding) for chunk in weight.chunk(groups, dim=1)])


def factorise(weight: Tensor, rank: int, groups: int, folding: int) -> tuple[Tensor, Tensor]:
    """Return the weights of encoder (groups x rank, c / groups, ...) and decoder (f, groups x rank, ...).

    Each chunk of c / groups input channels gets the best approximation of that rank: U sqrt(D) and sqrt(D) V^T.
    """
    f, c, *size = weight.shape
    encoder_size, decoder_size = kernels((size[0], size[1]), folding)
    left, right = best_factors(fold_chunks(weight.double(), folding, groups), rank)
    encoder = right.reshape(groups * rank, c // groups, *encoder_size)
    decoder = left.reshape(groups, f, *decoder_size, rank).permute(1, 0, 4, 2, 3).reshape(f, -1, *decoder_size)
    return encoder.to(weight.dtype), decoder.to(weight.dtype)


def best_factors(matrices: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return U sqrt(D), (b, m, rank), and sqrt(D) V^T, (b, rank, n), of double-precision matrices (b, m, n).

    The singular vectors of the shorter side are eigenvectors of its Gram matrix, and the other factor follows by
    projection, so that the product is the projection onto them whatever rounding does to small singular values.
    """
    wide = matrices.shape[1] <= matrices.shape[2]
    short = matrices if wide else matrices.mT
    values, vectors = leading_eigenpairs(short @ short.mT, rank)
    roots = values.clamp_min(0).pow(0.25)[:, None]
    tiny = roots < 1e-6 * roots[:, :, :1]  # a direction that the matrix does not have
    inverse = torch.where(tiny | (roots == 0), torch.zeros_like(roots), 1 / roots)
    near = vectors * torch.where(inverse == 0, torch.zeros_like(roots), roots)
    far = short.mT @ (vectors * inverse)
    return (near, far.mT) if wide else (far, near.mT)


def leading_eigenpairs(grams: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the `count` largest eigenvalues, descending, (b, count), and their eigenvectors, (b, n, count)."""
    n = grams.shape[-1]
    if grams.is_cuda or n < LARGE:
        values, vectors = torch.linalg.eigh(grams)
        return values[:, -count:].flip(-1), vectors[:, :, -count:].flip(-1)
    pairs = [
        scipy.linalg.eigh(gram.numpy(), subset_by_index=[n - count, n - 1], driver="evr", check_finite=False)
        for gram in grams
    ]
    values = torch.from_numpy(np.stack([pair[0][::-1] for pair in pairs]))
    return values, torch.from_numpy(np.stack([pair[1][:, ::-1] for pair in pairs]))


def recompose(encoder: Tensor, decoder: Tensor, groups: int) -> Tensor:
    """Return the weight (f, c, k1, k2) that encoder and decoder, as `factorise` returns them, amount to."""
    parts = [
        torch.einsum("rcab,frde->fcadbe", e, d)
        for e, d in zip(encoder.chunk(groups), decoder.chunk(groups, dim=1), strict=True)
    ]
    whole = torch.cat(parts, dim=1)
    f, c, a, d, b, e = whole.shape
    return whole.reshape(f, c, a * d, b * e)
