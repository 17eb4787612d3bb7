"""Decomposition by projective clustering (MESSI: Maalouf et al., arXiv 2010.04290)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NoReturn

import torch
from torch import Tensor, nn

from luigi_prune.compute.pruning.lowrank.decomposed import Decomposed, DecompositionError, assemble, square
from luigi_prune.compute.pruning.lowrank.errors import share
from luigi_prune.compute.pruning.lowrank.factors import Basis, gram
from luigi_prune.compute.pruning.lowrank.foldings import fold
from luigi_prune.compute.pruning.lowrank.norms import operator_norm
from luigi_prune.compute.pruning.lowrank.spectra import Spectrum
from luigi_prune.compute.pruning.protocol import Decomposition

RESTARTS = 5
LIVE = (5, 5, 5, 5, 5)  # restarts that take each step
LIVE_LARGE = (5, 2, 1, 1, 1, 1, 1)  # the same for large matrices, whose starts all lead to nearly the same cost
LARGE_ROWS = 2**14  # entries of such a matrix
TINY_ROWS = 2**13  # entries of a matrix of which many products are best made in one
EXACT = 16  # columns up to which subspaces are fitted exactly
POWERS = {False: 3, True: 2}  # steps of subspace iteration in a fit, by whether the matrix is large


def cluster_spectrum(weight: Tensor, count: int) -> Spectrum:
    """Return a spectrum without singular values: `count` subspaces, and what one dimension more in each costs.

    Every row of the folded matrix's transpose has coordinates in its own subspace only: j (f k + c k1 k2) weights.
    """
    filters, entries = weight.shape[0], weight[0].numel()
    count = min(count, entries)
    full = min(filters, entries // count)
    return Spectrum(0, count, count * filters + entries, full, _not_measured)


def _not_measured() -> NoReturn:
    raise TypeError("MESSI's clusters have no singular values before their rank is chosen")


def decompose_clusters(
    layer: nn.Module, choice: Decomposition, *, generator: Callable[[], torch.Generator]
) -> Decomposed:
    """Return `layer` with the entries of a filter in `choice.groups` clusters, each in a subspace of `choice.rank`.

    Its encoding is stitched: all clusters' coordinates in one layer of groups x rank features, which is zero wherever
    an entry belongs to another cluster. With its error: what the clusters' subspaces leave over.
    """
    weight = square(layer)
    matrix, inner = fold(weight, 0), choice.rank * choice.groups  # (filters, entries)
    assigned = cluster_rows(matrix.T, choice.groups, choice.rank, generator())
    encoder = matrix.new_zeros(choice.groups, choice.rank, matrix.shape[1])  # stays zero for the others' entries
    decoder = matrix.new_zeros(matrix.shape[0], choice.groups, choice.rank)
    whole, left_over = [], []
    for cluster in range(choice.groups):
        mine = (assigned == cluster).nonzero()[:, 0]
        rank = min(choice.rank, len(mine))
        if rank:
            basis = Basis(partial(_columns, matrix, mine))
            left, right = basis.factors(rank)
            encoder[cluster, :rank, mine], decoder[:, cluster, :rank] = right[0].to(encoder), left[0].to(decoder)
            whole.append(basis.left_over(0).to(matrix))
            left_over.append(basis.left_over(rank).to(matrix))
    bias = layer.bias if isinstance(layer.bias, Tensor) else None
    stitched = Decomposition(inner, 1, 0)
    encoder, decoder = encoder.reshape(inner, *weight.shape[1:]), decoder.reshape(-1, inner, 1, 1)
    new = assemble(layer, stitched, encoder, decoder, bias)
    new.error = DecompositionError(None, share(*(operator_norm(torch.cat(parts, 1)) for parts in (left_over, whole))))
    return new


def _columns(matrix: Tensor, which: Tensor) -> Tensor:
    return matrix[None, :, which]


def cluster_rows(rows: Tensor, count: int, dimension: int, generator: torch.Generator) -> Tensor:
    """Return for each of `rows` (n, d) its cluster, such that every cluster lies close to a subspace.

    From 5 random starts, each takes steps of fitting the subspaces to the clusters and of giving every row to the
    nearest one; the best, by the sum of squared distances, counts. Of a large matrix only the best go on. Subspaces
    need not be exact before the rows have settled: a fit is a few steps of subspace iteration from the last one, at
    first from the leading eigenvectors of all rows, none of which makes the distances larger.
    """
    rows = rows.float()  # who belongs where is a matter of luck anyway
    large = rows.numel() >= LARGE_ROWS
    start = torch.stack([torch.randperm(len(rows), generator=generator) for _ in range(RESTARTS)]) % count
    assigned = start.to(rows.device)  # (restarts, n), clusters of nearly equal size
    norms, total = rows.square().sum(1), _symmetric(gram(rows.T[None]))[0]
    spans = _leading(total, dimension).expand(RESTARTS, count, -1, -1)
    residual = norms.new_zeros(RESTARTS)
    for live in LIVE_LARGE if large else LIVE:
        best = residual.argsort()[:live]
        spans = _fit(_grams(rows, assigned[best], count, total), spans[best], POWERS[large])
        coordinates = rows @ spans.movedim(2, 0).flatten(1)  # in one large product
        captured = torch.linalg.vector_norm(coordinates.unflatten(1, (live, count, dimension)), dim=-1)
        nearest, assigned = (found.T for found in captured.max(-1))  # (live, n)
        residual = (norms - nearest.square()).sum(1)
    return assigned[residual.argmin()]


def _fit(grams: Tensor, spans: Tensor, powers: int) -> Tensor:
    """Return subspaces (..., d, dimension) nearer to the leading ones of `grams` (..., d, d) than `spans` are."""
    if grams.shape[-1] <= EXACT:
        return _leading(grams, spans.shape[-1])
    for _ in range(powers):
        spans = torch.linalg.qr(grams @ spans)[0]
    return spans


def _leading(grams: Tensor, dimension: int) -> Tensor:
    return torch.linalg.eigh(grams)[1][..., -dimension:]


def _grams(rows: Tensor, assigned: Tensor, count: int, total: Tensor) -> Tensor:
    """Return every cluster's Gram matrix, (restarts, count, d, d), of (restarts, n); `total`: that of all rows.

    That of the last cluster is what the others leave of it.
    """
    inside = torch.nn.functional.one_hot(assigned, count)[..., :-1].bool().movedim(2, 1)  # (restarts, count - 1, n)
    if not inside.shape[1]:
        return total.expand(len(assigned), 1, -1, -1)
    if rows.numel() <= TINY_ROWS:
        masked = inside.flatten(0, 1).T[:, :, None] * rows[:, None]  # (n, restarts (count - 1), d)
        parts = (rows.T @ masked.flatten(1)).unflatten(1, (*inside.shape[:2], -1)).movedim(0, -1)
    else:
        parts = torch.stack([gram(rows[own].T[None])[0] for own in inside.flatten(0, 1)])
        parts = _symmetric(parts).unflatten(0, inside.shape[:2])
    return torch.cat([parts, total - parts.sum(1, keepdim=True)], 1)


def _symmetric(lower: Tensor) -> Tensor:
    """Return Gram matrices in full, of which only the lower triangle need be set."""
    return lower.tril() + lower.tril(-1).mT
