"""Decomposition by projective clustering (MESSI: Maalouf et al., arXiv 2010.04290)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NoReturn

import torch
from torch import Tensor, nn

from luigi_prune.compute.pruning.low_rank.approximation_error import relative_error
from luigi_prune.compute.pruning.low_rank.decomposed import Decomposed, DecompositionError, assemble, square
from luigi_prune.compute.pruning.low_rank.factors import Basis, gram
from luigi_prune.compute.pruning.low_rank.foldings import fold
from luigi_prune.compute.pruning.low_rank.norms import operator_norm
from luigi_prune.compute.pruning.low_rank.spectra import Spectrum
from luigi_prune.compute.pruning.problem.records import Decomposition

RESTARTS = 5
LIVE = (5, 5, 5, 5, 5)  # restarts that are continued, per step
LIVE_LARGE = (5, 2, 1, 1, 1, 1, 1)  # the same for large matrices, whose restarts all reach nearly the same cost
LARGE_ROWS = 2**14  # entries from which on a matrix is large
TINY_ROWS = 2**13  # entries up to which one product for all clusters is faster than one per cluster
EXACT = 16  # columns up to which subspaces are fitted exactly
POWERS = {False: 3, True: 2}  # steps of subspace iteration in a fit, by whether the matrix is large


def cluster_spectrum(weight: Tensor, count: int) -> Spectrum:
    """Return a spectrum without singular values: `count` subspaces, and the cost of one more dimension in each.

    Each row of the folded matrix's transpose has coordinates in the subspace of its cluster only; dimension j costs
    j (f k + c k1 k2) weights.
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
    """Return `layer` with the entries of a filter in `choice.groups` clusters, each in a subspace of dimension `rank`.

    The encoding holds all clusters' coordinates in one layer of groups x rank features, whose weight is zero for
    entries of other clusters. Its error is the part of the weight outside the subspaces.
    """
    weight = square(layer)
    matrix, inner = fold(weight, 0), choice.rank * choice.groups  # (filters, entries)
    assigned = cluster_rows(matrix.T, choice.groups, choice.rank, generator())
    encoder = matrix.new_zeros(choice.groups, choice.rank, matrix.shape[1])  # zero for entries of other clusters
    decoder = matrix.new_zeros(matrix.shape[0], choice.groups, choice.rank)
    full, residual = [], []
    for cluster in range(choice.groups):
        members = (assigned == cluster).nonzero()[:, 0]
        rank = min(choice.rank, len(members))
        if rank:
            basis = Basis(partial(_chunk_of, matrix, members))
            left, right = basis.factors(rank)
            encoder[cluster, :rank, members], decoder[:, cluster, :rank] = right[0].to(encoder), left[0].to(decoder)
            full.append(basis.residual(0).to(matrix))
            residual.append(basis.residual(rank).to(matrix))
    bias = layer.bias if isinstance(layer.bias, Tensor) else None
    stitched = Decomposition(inner, 1, 0)
    encoder, decoder = encoder.reshape(inner, *weight.shape[1:]), decoder.reshape(-1, inner, 1, 1)
    new = assemble(layer, stitched, encoder, decoder, bias)
    new.error = DecompositionError(
        None, relative_error(*(operator_norm(torch.cat(parts, 1)) for parts in (residual, full)))
    )
    return new


def _chunk_of(matrix: Tensor, members: Tensor) -> Tensor:
    return matrix[None, :, members]


def cluster_rows(rows: Tensor, count: int, dimension: int, generator: torch.Generator) -> Tensor:
    """Return the cluster of each of `rows` (n, d), such that every cluster lies close to a subspace.

    Each of 5 random restarts alternates between fitting the subspaces to the clusters and assigning every row to the
    nearest subspace; the result with the least sum of squared distances is returned. For a large matrix only the best
    restarts continue. Subspaces need not be exact before the assignments have converged: a fit is a few steps of
    subspace iteration from the previous one, initially from the leading eigenvectors of all rows. No step increases the
    distances.
    """
    rows = rows.float()  # the assignment depends on the random start anyway
    large = rows.numel() >= LARGE_ROWS
    start = torch.stack([torch.randperm(len(rows), generator=generator) for _ in range(RESTARTS)]) % count
    assigned = start.to(rows.device)  # (restarts, n), clusters of nearly equal size
    norms, total = rows.square().sum(1), _symmetric(gram(rows.T[None]))[0]
    spans = _leading(total, dimension).expand(RESTARTS, count, -1, -1)
    residual = norms.new_zeros(RESTARTS)
    for live in LIVE_LARGE if large else LIVE:
        best = residual.argsort()[:live]
        spans = _fit(_grams(rows, assigned[best], count, total), spans[best], POWERS[large])
        coordinates = rows @ spans.movedim(2, 0).flatten(1)  # one large product
        captured = torch.linalg.vector_norm(coordinates.unflatten(1, (live, count, dimension)), dim=-1)
        nearest, assigned = (result.T for result in captured.max(-1))  # (live, n)
        residual = (norms - nearest.square()).sum(1)
    return assigned[residual.argmin()]


def _fit(grams: Tensor, spans: Tensor, powers: int) -> Tensor:
    """Return subspaces (..., d, dimension) closer to the leading eigenspaces of `grams` (..., d, d) than `spans`."""
    if grams.shape[-1] <= EXACT:
        return _leading(grams, spans.shape[-1])
    for _ in range(powers):
        spans = torch.linalg.qr(grams @ spans)[0]
    return spans


def _leading(grams: Tensor, dimension: int) -> Tensor:
    return torch.linalg.eigh(grams)[1][..., -dimension:]


def _grams(rows: Tensor, assigned: Tensor, count: int, total: Tensor) -> Tensor:
    """Return the clusters' Gram matrices, (restarts, count, d, d), for `assigned` (restarts, n); `total`: of all rows.

    The last cluster's is `total` minus the others.
    """
    inside = torch.nn.functional.one_hot(assigned, count)[..., :-1].bool().movedim(2, 1)  # (restarts, count - 1, n)
    if not inside.shape[1]:
        return total.expand(len(assigned), 1, -1, -1)
    if rows.numel() <= TINY_ROWS:
        masked = inside.flatten(0, 1).T[:, :, None] * rows[:, None]  # (n, restarts (count - 1), d)
        parts = (rows.T @ masked.flatten(1)).unflatten(1, (*inside.shape[:2], -1)).movedim(0, -1)
    else:
        parts = torch.stack([gram(rows[members].T[None])[0] for members in inside.flatten(0, 1)])
        parts = _symmetric(parts).unflatten(0, inside.shape[:2])
    return torch.cat([parts, total - parts.sum(1, keepdim=True)], 1)


def _symmetric(lower: Tensor) -> Tensor:
    """Return full Gram matrices from their lower triangles."""
    return lower.tril() + lower.tril(-1).mT
