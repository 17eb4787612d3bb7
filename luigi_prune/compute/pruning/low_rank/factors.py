"""The best factors of a folded layer, cut at any rank from the eigenvectors of the smaller Gram matrix.

Eigenvectors of a Gram matrix cost a fraction of a singular value decomposition. Large matrices are decomposed in single
precision, which is exact to about 1e-5 for singular values above `SINGLE_FLOOR` of the largest; if a smaller one is
read, as for a layer that nearly has a lower rank, everything is recomputed in double precision.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from luigi_prune.compute.pruning.low_rank.foldings import fold_chunks, kernels

LARGE = 256  # rows of a Gram matrix from which on single precision is worthwhile
SINGLE_FLOOR = 0.03  # relative to the largest singular value; below it single precision is not trusted
BLOCKS = 8  # strips in which a symmetric Gram matrix is computed: seven sixteenths of it are skipped
MUCH = 2**26  # multiplications for the Gram matrices of all chunks from which on single precision is worthwhile, too


def short_side(chunks: Tensor) -> Tensor:
    """Return the chunks (b, m, n), transposed if they have more rows than columns."""
    return chunks if chunks.shape[1] <= chunks.shape[2] else chunks.mT


def gram(rows: Tensor) -> Tensor:
    """Return `rows` times their transpose, (b, m, m) of (b, m, n); only the lower triangle is set."""
    size = rows.shape[1]
    if size < LARGE:
        return rows @ rows.mT
    product, step = rows.new_zeros(rows.shape[0], size, size), -(-size // BLOCKS)
    for first in range(0, size, step):
        product[:, first:, first : first + step] = rows[:, first:] @ rows[:, first : first + step].mT
    return product


def eigenvalues(grams: Tensor) -> Tensor:
    """Return the eigenvalues of Gram matrices (b, n, n), descending and not below 0: (b, n)."""
    return torch.linalg.eigvalsh(grams).flip(-1).clamp_min(0)


def eigenpairs(grams: Tensor) -> tuple[Tensor, Tensor]:
    """Return those eigenvalues, and the eigenvectors as columns, in the same order: (b, n, n)."""
    values, vectors = torch.linalg.eigh(grams)
    return values.flip(-1).clamp_min(0), vectors.flip(-1)


def trusted(values: Tensor, rank: int) -> bool:
    """Return whether the `rank` largest of eigenvalues (b, n), descending, are large enough for their precision."""
    if values.dtype == torch.float64 or not rank:
        return True
    return bool((values[:, rank - 1] >= SINGLE_FLOOR**2 * values[:, 0]).all() & (values[:, 0] > 0).all())


def in_single(chunks: Tensor) -> bool:
    """Return whether single precision is tried for these chunks: they are large or many, and not double already."""
    short = min(chunks.shape[1:])
    return (short >= LARGE or chunks.numel() * short >= MUCH) and chunks.dtype != torch.float64


class Basis:
    """The eigenpairs of the Gram matrices of chunks (b, m, n), computed once, when they are first read.

    `grams`: returns the Gram matrices of their shorter side in a type, by default their products.
    `total_gram`: lower triangle of the Gram matrix (m, m) of the chunks side by side, once it is known.
    """

    def __init__(self, chunks: Callable[[], Tensor], grams: Callable[[torch.dtype], Tensor] | None = None) -> None:
        self._chunks = chunks
        self._grams = grams or (lambda dtype: gram(short_side(chunks().to(dtype))))
        self.total_gram: Tensor | None = None

    @cached_property
    def _single(self) -> tuple[Tensor, Tensor] | None:
        return self._pairs(torch.float32) if in_single(self._chunks()) else None

    @cached_property
    def _double(self) -> tuple[Tensor, Tensor]:
        return self._pairs(torch.float64)

    def _pairs(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        grams, rows = self._grams(dtype), self._chunks().shape[1]
        if grams.shape[1] == rows:
            self.total_gram = grams.sum(0)
        return eigenpairs(grams)

    def pairs(self, rank: int) -> tuple[Tensor, Tensor]:
        """Return all eigenvalues, descending, (b, s), and eigenvectors, (b, s, s), accurate for the `rank` largest."""
        if self._single is not None and trusted(self._single[0], rank):
            return self._single
        return self._double

    def factors(self, rank: int) -> tuple[Tensor, Tensor]:
        """Return U sqrt(D), (b, m, rank), and sqrt(D) V^T, (b, rank, n): the best approximation of that rank.

        The singular vectors of the shorter side are the eigenvectors; the other factor follows by projection, so that
        the product is the projection onto them whatever the rounding of small singular values.
        """
        values, vectors = self.pairs(rank)
        chunks = self._chunks().to(values.dtype)
        roots, vectors = values[:, None, :rank].pow(0.25), vectors[:, :, :rank]
        tiny = (roots < 1e-6 * roots[:, :, :1]) | (roots == 0)  # a direction in which the matrix is zero
        near = vectors * roots.masked_fill(tiny, 0)
        inverse = (1 / roots).masked_fill(tiny, 0)
        short = short_side(chunks)
        far = inverse.mT * (vectors.mT @ short)
        return (near, far) if short.shape == chunks.shape else (far.mT, near.mT)

    def residual(self, rank: int) -> Tensor:
        """Return the chunks side by side minus their approximation by `factors(rank)`, up to a rotation of the columns.

        Shape (m, b (s - rank)); it has the singular values of the difference, at rank 0 those of the full matrix.
        """
        return self._components(rank, slice(rank, None))

    def approximation(self, rank: int) -> Tensor:
        """Return the approximation by `factors(rank)`, chunks side by side, up to a rotation: (m, b rank)."""
        return self._components(rank, slice(rank))

    def _components(self, rank: int, part: slice) -> Tensor:
        values, vectors = self.pairs(rank)
        chunks, vectors = self._chunks(), vectors[:, :, part]
        if chunks.shape[1] <= chunks.shape[2]:
            found = vectors * values[:, None, part].sqrt()
        else:
            found = chunks.to(vectors.dtype) @ vectors
        return found.movedim(0, 1).flatten(1)


def basis_of(weight: Tensor, folding: int, groups: int, grams: Callable[[torch.dtype], Tensor] | None = None) -> Basis:
    """Return the basis of the `groups` chunks of `weight` (f, c, k1, k2), whose Gram matrices `grams` may compute."""
    return Basis(lambda: fold_chunks(weight, folding, groups), grams)


def factorise(
    weight: Tensor, rank: int, groups: int, folding: int, basis: Basis | None = None
) -> tuple[Tensor, Tensor]:
    """Return the weights of encoder (groups x rank, c / groups, ...) and decoder (f, groups x rank, ...).

    Each chunk of c / groups input channels gets the best approximation of that rank: U sqrt(D) and sqrt(D) V^T.
    `basis`: that of the chunks, if it is computed already.
    """
    f, c, *size = weight.shape
    encoder_size, decoder_size = kernels((size[0], size[1]), folding)
    left, right = (basis or basis_of(weight, folding, groups)).factors(rank)
    encoder = right.reshape(groups * rank, c // groups, *encoder_size)
    decoder = left.reshape(groups, f, *decoder_size, rank).permute(1, 0, 4, 2, 3).reshape(f, -1, *decoder_size)
    return encoder.to(weight.dtype), decoder.to(weight.dtype)
