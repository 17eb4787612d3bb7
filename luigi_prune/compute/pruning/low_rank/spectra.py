"""Singular values of a folded layer, for every (folding, groups): computed when first read, once per weight.

They are computed from the eigenvalues of the smaller Gram matrix, several times faster than a singular value
decomposition. Layers with 256 rows and columns or more use single precision if that is exact enough (see factors.py),
all others double: exact to about 1e-8 of the largest, the precision of single-precision weights.

If many (folding, groups) of a layer compete, few of them matter at a given size of the network. Lower bounds of the
errors of the others are cheap: from two moments of the first chunk's Gram matrix, then from that chunk's singular
values alone, then from those of a few chunks. A search that chooses by these bounds measures its choices and chooses
again, until all of them are measured (`Spectrum.refine`, `rank_levels.choose_measured`): the result is the same as with
the singular values of all chunks.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor

from luigi_prune.compute.pruning.low_rank.bounds import least_dropped
from luigi_prune.compute.pruning.low_rank.chunk_grams import ChunkGrams
from luigi_prune.compute.pruning.low_rank.factors import Basis, basis_of, eigenvalues, gram, short_side, trusted
from luigi_prune.compute.pruning.low_rank.foldings import cost_per_rank, fold, full_rank, kernels
from luigi_prune.compute.pruning.low_rank.norms import largest_eigenvalue, operator_norm

NOISE = 1e-7  # relative to the largest: smaller singular values are single-precision rounding and count as zero
CACHE_SIZE = 40_000  # arrays, of a few hundred numbers each
FEW_CHUNKS = 8  # chunks of the second bound, if there are many more
WORTH_FEW_CHUNKS = 2**16  # entries of a layer from which on that bound is worthwhile
WORTH_MOMENTS = 128  # rows of a Gram matrix from which on its moments are much cheaper than its eigenvalues


@dataclass(eq=False)
class Spectrum:
    """The singular values and errors of one layer's chunks in one folding; computed when first read.

    `per_rank`: weights that one more rank in every group costs. `full`: the largest useful rank. `measure`: returns
    `values` and `norm`. `basis`: from which the chunks' factors are taken. `bounds`: functions that return lower bounds
    of `errors`, each tighter and more expensive than the previous one. `grams`: the Gram matrices of that folding.
    """

    folding: int
    groups: int
    per_rank: int
    full: int
    measure: Callable[[], tuple[np.ndarray, float]]
    basis: Basis | None = None
    bounds: list[Callable[[], np.ndarray]] = field(default_factory=list)
    grams: ChunkGrams | None = None

    @cached_property
    def _measured(self) -> tuple[np.ndarray, float]:
        return self.measure()

    @property
    def is_measured(self) -> bool:
        """Whether `values` and `norm` are computed already."""
        return "_measured" in self.__dict__

    @property
    def values(self) -> np.ndarray:
        """The singular values of every chunk: float64 of shape (groups, full rank), descending."""
        return self._measured[0]

    @property
    def norm(self) -> float:
        """The operator norm of the folded matrix."""
        return self._measured[1]

    def errors(self) -> np.ndarray:
        """Return the relative error at ranks 1, 2, ... full: the largest dropped singular value of a chunk over `norm`.

        (ALDS, arXiv 2107.11442.)
        """
        dropped = self.values[:, 1:].max(axis=0, initial=0.0)
        return np.append(dropped, 0.0) / (self.norm or 1.0)

    def least_errors(self) -> np.ndarray:
        """Return the best lower bound of `errors` computed so far, or `errors` if there is no cheaper bound."""
        return self.bounds[0]() if self.bounds and not self.is_measured else self.errors()

    def refine(self) -> bool:
        """Switch `least_errors` to the next tighter bound; return False if they are the `errors` already."""
        if not self.bounds:
            return False
        self.bounds = [] if self.is_measured else self.bounds[1:]
        return True


def spectra_of(weight: Tensor, pairs: list[tuple[int, int]]) -> list[Spectrum]:
    """Return the spectra of `weight` (f, c, k1, k2) for each (folding, groups) in `pairs`.

    They are read from the bases that the layer will be decomposed with. If there are several pairs, results are cached
    by the weight's content for the life of the process.
    """
    f, c, *size = weight.shape
    shape = (f, c, size[0], size[1])
    weight = weight.detach()
    grams = {folding: ChunkGrams(weight, folding, [k for at, k in pairs if at == folding]) for folding, _ in pairs}
    cached = _CachedSpectra(weight, grams) if len(pairs) > 1 else None
    spectra = []
    for folding, groups in pairs:
        basis = basis_of(weight, folding, groups, partial(grams[folding].of, groups))
        per_rank, full = cost_per_rank(shape, groups, folding), full_rank(shape, groups, folding)
        measure = partial(cached.measure if cached else partial(_measure, weight), folding, groups, basis)
        bounds = cached.bounds(folding, groups, full) if cached else []
        spectra.append(Spectrum(folding, groups, per_rank, full, measure, basis, bounds, grams[folding]))
    return spectra


def _measure(weight: Tensor, folding: int, groups: int, basis: Basis) -> tuple[np.ndarray, float]:
    values = chunk_values(weight, folding, groups, basis)
    norm = float(values.max(initial=0.0)) if groups == 1 else matrix_norm(weight, folding, basis)
    return np.where(values < NOISE * norm, 0.0, values), norm


def matrix_norm(weight: Tensor, folding: int, basis: Basis) -> float:
    """Return the operator norm of the folded matrix."""
    if basis.total_gram is None:
        return operator_norm(fold(weight, folding))
    return largest_eigenvalue(basis.total_gram) ** 0.5


def chunk_values(weight: Tensor, folding: int, groups: int, basis: Basis) -> np.ndarray:
    """Return the chunks' singular values, float64 (groups, full rank), descending."""
    return _roots(basis.pairs(_readable(weight, folding, groups))[0])


_cache: OrderedDict[tuple[bytes, str, int, int], np.ndarray] = OrderedDict()


def clear_cache() -> None:
    """Empty the cache of singular values and bounds."""
    _cache.clear()


class _CachedSpectra:
    """Cached singular values, norms and bounds of one weight, for several (folding, groups)."""

    def __init__(self, weight: Tensor, grams: dict[int, ChunkGrams]) -> None:
        self._weight, self._grams = weight, grams

    @cached_property
    def _digest(self) -> bytes:
        digest = hashlib.sha256(repr((tuple(self._weight.shape), str(self._weight.dtype))).encode())
        digest.update(self._weight.contiguous().view(torch.uint8).cpu().numpy().data)
        return digest.digest()

    def _cached(self, what: str, folding: int, groups: int, compute: Callable[[], np.ndarray]) -> np.ndarray:
        key = (self._digest, what, folding, groups)
        if key not in _cache:
            _cache[key] = np.array(compute())  # a copy, since arrays made of tensors keep these and their base alive
            if len(_cache) > CACHE_SIZE:
                _cache.popitem(last=False)
        _cache.move_to_end(key)
        return _cache[key]

    def measure(self, folding: int, groups: int, basis: Basis) -> tuple[np.ndarray, float]:
        """Return the singular values for one pair, and the norm of the matrix in that folding."""
        compute = partial(chunk_values, self._weight, folding, groups, basis)
        values, norm = self._cached("values", folding, groups, compute), self._norm(folding)
        return np.where(values < NOISE * norm, 0.0, values), norm

    def bounds(self, folding: int, groups: int, full: int) -> list[Callable[[], np.ndarray]]:
        """Return functions that bound the relative errors at ranks 1, 2, ... full from below, the cheapest first."""
        if (self._digest, "values", folding, groups) in _cache:
            return []
        bounds: list[Callable[[], np.ndarray]] = []
        if full >= WORTH_MOMENTS:
            bounds.append(partial(self._bound_by_moments, folding, groups))
        bounds.append(partial(self._bound_by_first_chunks, folding, groups, 1))
        if groups > 2 * FEW_CHUNKS and self._weight.numel() >= WORTH_FEW_CHUNKS:
            bounds.append(partial(self._bound_by_first_chunks, folding, groups, FEW_CHUNKS))
        return bounds

    def _bound_by_moments(self, folding: int, groups: int) -> np.ndarray:
        least = self._cached("moments", folding, groups, lambda: least_dropped(self._gram(folding, groups)))
        return least / (self._norm(folding) or 1.0)

    def _bound_by_first_chunks(self, folding: int, groups: int, count: int) -> np.ndarray:
        """Return the bound by the singular values of the first `count` chunks."""
        values = self._cached(f"first {count}", folding, groups, lambda: self._first_values(folding, groups, count))
        norm = self._norm(folding)
        return np.append(np.where(values < NOISE * norm, 0.0, values)[1:], 0.0) / (norm or 1.0)

    def _first_values(self, folding: int, groups: int, count: int) -> np.ndarray:
        if count == 1:
            values = eigenvalues(self._gram(folding, groups)[None])
            if trusted(values, _readable(self._weight, folding, groups)):
                return _roots(values)[0]
        matrix = fold(self._weight, folding)
        some = matrix[:, : count * (matrix.shape[1] // groups)].double()
        chunks = some.unflatten(1, (count, -1)).movedim(1, 0)
        return _roots(eigenvalues(gram(short_side(chunks)))).max(axis=0)

    def _norm(self, folding: int) -> float:
        def compute() -> np.ndarray:
            return np.array(largest_eigenvalue(self._grams[folding].whole) ** 0.5)

        return float(self._cached("norm", folding, 1, compute))

    def _gram(self, folding: int, groups: int) -> Tensor:
        return self._grams[folding].first[groups]


def _roots(values: Tensor) -> np.ndarray:
    return values.double().sqrt().cpu().numpy()


def _readable(weight: Tensor, folding: int, groups: int) -> int:
    """Return how many singular values of a chunk can be read: one more than the largest rank that saves weights."""
    f, c, *size = weight.shape
    shape = (f, c, size[0], size[1])
    saving = (weight.numel() - 1) // cost_per_rank(shape, groups, folding)
    return min(full_rank(shape, groups, folding), saving + 1)


def divisors(channels: int) -> list[int]:
    """Return the divisors of `channels`, ascending."""
    return [k for k in range(1, channels + 1) if channels % k == 0]


def nearest_divisor(channels: int, groups: int) -> int:
    """Return the divisor of `channels` nearest to `groups`; the larger of two that are equally near."""
    return min(divisors(channels), key=lambda k: (abs(k - groups), -k))


def distinct_foldings(size: tuple[int, int]) -> list[int]:
    """Return the foldings of a kernel that differ: four for a square one, one for a kernel of one entry."""
    seen: dict[tuple[tuple[int, int], tuple[int, int]], int] = {}
    for folding in range(4):
        seen.setdefault(kernels(size, folding), folding)
    return sorted(seen.values())
