"""Decomposition by projective clustering (MESSI: Maalouf et al., arXiv 2010.04290)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from luigi_prune.compute.pruning.lowrank.decomposed import Decomposed, assemble, square
from luigi_prune.compute.pruning.lowrank.foldings import best_factors, fold
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
    return Spectrum(0, count, count * filters + entries, np.zeros((1, full)), 0.0)


def decompose_clusters(
    layer: nn.Module, choice: Decomposition, *, generator: Callable[[], torch.Generator]
) -> Decomposed:
    """Return `layer` with the entries of a filter in `choice.groups` clusters, each in a subspace of `choice.rank`.

    Its encoding is stitched: all clusters' coordinates in one layer of groups x rank features, which is zero wherever
    an entry belongs to another cluster.
    """
    weight = square(layer)
    rows = fold(weight, 0).T.double()  # (entries, filters)
    assigned = cluster_rows(rows, choice.groups, choice.rank, generator())
    encoders, decoders = [], []
    for cluster in range(choice.groups):
        mine = assigned == cluster
        left, right = best_factors((rows * mine[:, None]).T[None], choice.rank)
        decoders.append(left[0])
        encoders.append(right[0] * mine)  # exactly zero for the others' entries
    inner = choice.rank * choice.groups
    encoder = torch.cat(encoders).reshape(inner, *weight.shape[1:])
    bias = layer.bias if isinstance(layer.bias, Tensor) else None
    stitched = Decomposition(inner, 1, 0)
    return assemble(layer, stitched, encoder, torch.cat(decoders, dim=1)[:, :, None, None], bias)


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
        captured = (rows @ spans).square().sum(-1)  # (restarts, count, n)
        best, assigned = captured.max(1)
    residual = (norms - best).sum(1)
    return assigned[residual.argmin()]


def _grams(rows: Tensor, inside: Tensor) -> Tensor:
    """Return the Gram matrix of every cluster, (restarts, count, d, d); `inside` is (restarts, n, count)."""
    flat = inside.bool()
    return torch.stack(
        [torch.stack([rows[own].T @ rows[own] for own in clusters.unbind(1)]) for clusters in flat.unbind(0)]
    )
