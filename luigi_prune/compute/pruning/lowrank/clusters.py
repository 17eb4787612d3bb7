"""Decomposition by projective clustering (MESSI: Maalouf et al., arXiv 2010.04290)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NoReturn

import torch
from torch import Tensor, nn

from luigi_prune.compute.pruning.lowrank.decomposed import Decomposed, assemble, square
from luigi_prune.compute.pruning.lowrank.factors import Basis, gram
from luigi_prune.compute.pruning.lowrank.foldings import fold
from luigi_prune.compute.pruning.lowrank.spectra import Spectrum
from luigi_prune.compute.pruning.protocol import Decomposition

STEPS = 5
RESTARTS = 5


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
    an entry belongs to another cluster.
    """
    weight = square(layer)
    matrix, inner = fold(weight, 0), choice.rank * choice.groups  # (filters, entries)
    assigned = cluster_rows(matrix.T, choice.groups, choice.rank, generator())
    encoder = matrix.new_zeros(choice.groups, choice.rank, matrix.shape[1])  # stays zero for the others' entries
    decoder = matrix.new_zeros(matrix.shape[0], choice.groups, choice.rank)
    for cluster in range(choice.groups):
        mine = (assigned == cluster).nonzero()[:, 0]
        rank = min(choice.rank, len(mine))
        if rank:
            left, right = Basis(partial(_columns, matrix, mine)).factors(rank)
            encoder[cluster, :rank, mine], decoder[:, cluster, :rank] = right[0].to(encoder), left[0].to(decoder)
    bias = layer.bias if isinstance(layer.bias, Tensor) else None
    stitched = Decomposition(inner, 1, 0)
    encoder, decoder = encoder.reshape(inner, *weight.shape[1:]), decoder.reshape(-1, inner, 1, 1)
    return assemble(layer, stitched, encoder, decoder, bias)


def _columns(matrix: Tensor, which: Tensor) -> Tensor:
    return matrix[None, :, which]


def cluster_rows(rows: Tensor, count: int, dimension: int, generator: torch.Generator) -> Tensor:
    """Return for each of `rows` (n, d) its cluster, such that every cluster lies close to a subspace.

    The best of 5 random starts, by the sum of squared distances; each takes 5 steps of fitting the subspaces (the
    leading eigenvectors of a cluster's Gram matrix) and of giving every row to the nearest one.
    """
    entries, rows = len(rows), rows.float()  # who belongs where is a matter of luck anyway
    start = torch.stack([torch.randperm(entries, generator=generator) for _ in range(RESTARTS)]) % count
    assigned = start.to(rows.device)  # (restarts, n), clusters of nearly equal size
    norms = rows.square().sum(1)
    for _ in range(STEPS):
        grams = _grams(rows, torch.nn.functional.one_hot(assigned, count))
        spans = torch.linalg.eigh(grams)[1][..., -dimension:]  # (restarts, count, d, dimension)
        coordinates = rows @ spans.movedim(2, 0).flatten(1)  # in one large product
        captured = torch.linalg.vector_norm(coordinates.unflatten(1, (RESTARTS, count, dimension)), dim=-1)
        best, assigned = (found.T for found in captured.max(-1))  # (restarts, n)
    residual = (norms - best.square()).sum(1)
    return assigned[residual.argmin()]


def _grams(rows: Tensor, inside: Tensor) -> Tensor:
    """Return the lower triangle of every cluster's Gram matrix, (restarts, count, d, d), of (restarts, n, count)."""
    owners = inside.bool().movedim(1, 2).flatten(0, 1)
    grams = torch.stack([gram(rows[own].T[None])[0] for own in owners.unbind(0)])
    return grams.unflatten(0, (len(inside), -1))
