"""Foldings: the four ways to read a weight (f, c, k1, k2) as a matrix, whose factors are the weights of two layers.

Folding 0 is f x (c k1 k2), 1 is (f k1) x (k2 c), 2 is (f k2) x (k1 c), 3 is (f k1 k2) x c (ALDS, arXiv 2107.11442): the
decoder gets the kernel axes next to f, the encoder those next to c. Linear layers have k1 = k2 = 1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

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
    """Return the number of weights that one more rank in every group costs."""
    f, c, *size = shape
    encoder, decoder = kernels((size[0], size[1]), folding)
    return groups * f * math.prod(decoder) + c * math.prod(encoder)


def fold_chunks(weight: Tensor, folding: int, groups: int) -> Tensor:
    """Return the `groups` chunks of c / groups input channels, each folded: (groups, rows, columns)."""
    matrix = fold(weight, folding)
    return matrix.reshape(len(matrix), groups, -1).movedim(1, 0)


def recompose(encoder: Tensor, decoder: Tensor, groups: int) -> Tensor:
    """Return the weight (f, c, k1, k2) of the layer equivalent to an encoder and decoder of `factors.factorise`."""
    parts = [
        torch.einsum("rcab,frde->fcadbe", e, d)
        for e, d in zip(encoder.chunk(groups), decoder.chunk(groups, dim=1), strict=True)
    ]
    weight = torch.cat(parts, dim=1)
    f, c, a, d, b, e = weight.shape
    return weight.reshape(f, c, a * d, b * e)
