"""Singular values of a folded layer, for every (folding, groups): computed when they are read, once for each weight.

They come from the eigenvalues of the smaller Gram matrix: several times faster than a singular value decomposition.
Layers with 256 rows and columns or more are done in single precision where that is exact enough (see factors.py), all
others in double: exact to about 1e-8 of the largest, which is what single-precision weights hold.

Where many (folding, groups) of a layer compete, few of them come into question at a given size of the network. What
most of them would lose at least is known for little: from two moments of the first chunk's Gram matrix, then from that
chunk's singular values alone. Whoever chooses by these bounds measures what was chosen, until all of it is measured
(`Spectrum.refine`): that is the choice by the singular values of all chunks.
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

from luigi_prune.compute.pruning.lowrank.factors import LARGE, Basis, basis_of, eigenvalues, gram, short_side, trusted
from luigi_prune.compute.pruning.lowrank.foldings import cost_per_rank, fold, full_rank, kernels
from luigi_prune.compute.pruning.lowrank.norms import largest_eigenvalue, operator_norm

NOISE = 1e-7  # relative to the largest: smaller singular values are rounding of single precision, that is zero
REMEMBERED = 40_000  # arrays, of a few hundred numbers each
BY_MOMENTS = 128  # rows of a Gram matrix from which on its moments are much cheaper than its eigenvalues


@dataclass(eq=False)
class Spectrum:
    """What one layer's chunks lose at each rank, in one folding; computed when it is first read.

    `per_rank`: weights that one more rank in every group costs. `full`: the largest useful rank. `measure`: returns
    `values` and `norm`. `basis`: what the chunks' factors are cut from. `bounds`: functions that return what `errors`
    are at least, each more exact and dearer than the one before.
    """

    folding: int
    groups: int
    per_rank: int
    full: int
    measure: Callable[[], tuple[np.ndarray, float]]
    basis: Basis | None = None
    bounds: list[Callable[[], np.ndarray]] = field(default_factory=list)

    @cached_property
    def _measured(self) -> tuple[np.ndarray, float]:
        self.bounds = []
        return self.measure()

    @cached_property
    def _bound(self) -> np.ndarray:
        return self.bounds[0]()

    @property
    def is_measured(self) -> bool:
        """Whether `values` and `norm` are there already."""
        return "_measured" in self.__dict__

    @property
    def values(self) -> np.ndarray:
        """The singular values of every chunk: float64 of shape (groups, full rank), descending."""
        return self._measured[0]

    @property
    def norm(self) -> float:
        """The operator norm of the whole folded matrix."""
        return self._measured[1]

    def errors(self) -> np.ndarray:
        """Return the relative error at ranks 1, 2, ... full: the largest dropped singular value of a chunk over `norm`.

        (ALDS, arXiv 2107.11442.)
        """
        dropped = self.values[:, 1:].max(axis=0, initial=0.0)
        return np.append(dropped, 0.0) / (self.norm or 1.0)

    def least_errors(self) -> np.ndarray:
        """Return `errors` where there is nothing cheaper to read, else what they are at least, as far as is known."""
        return self._bound if self.bounds else self.errors()

    def refine(self) -> bool:
        """Make `least_errors` more exact; return False where they are the `errors` already."""
        if not self.bounds:
            return False
        self.bounds = self.bounds[1:]
        self.__dict__.pop("_bound", None)
        return True


def spectra_of(weight: Tensor, wanted: list[tuple[int, int]]) -> list[Spectrum]:
    """Return the spectra of `weight` (f, c, k1, k2) for each wanted (folding, groups).

    They are read from the bases that the layer is going to be decomposed by. Several: what has been read of a weight
    before in this process is not computed again, whatever network it stood in.
    """
    f, c, *size = weight.shape
    shape = (f, c, size[0], size[1])
    weight = weight.detach()
    compete = _Competing(weight, wanted) if len(wanted) > 1 else None
    found = []
    for folding, groups in wanted:
        basis = basis_of(weight, folding, groups)
        per_rank, full = cost_per_rank(shape, groups, folding), full_rank(shape, groups, folding)
        measure = partial(_alone, weight, folding, groups, basis)
        spectrum = Spectrum(folding, groups, per_rank, full, measure, basis)
        if compete:
            spectrum.measure = partial(compete.of, folding, groups, basis)
            spectrum.bounds = compete.bounds(folding, groups, full)
        found.append(spectrum)
    return found


def _alone(weight: Tensor, folding: int, groups: int, basis: Basis) -> tuple[np.ndarray, float]:
    values = chunk_values(weight, folding, groups, basis)
    norm = float(values.max(initial=0.0)) if groups == 1 else operator_norm(fold(weight, folding))
    return np.where(values < NOISE * norm, 0.0, values), norm


def chunk_values(weight: Tensor, folding: int, groups: int, basis: Basis) -> np.ndarray:
    """Return the chunks' singular values, float64 (groups, full rank), descending."""
    return _roots(basis.pairs(_readable(weight, folding, groups))[0])


_remembered: OrderedDict[tuple[bytes, str, int, int], np.ndarray] = OrderedDict()


class _Competing:
    """What is known of one weight in all wanted foldings and groups."""

    def __init__(self, weight: Tensor, wanted: list[tuple[int, int]]) -> None:
        self._weight, self._wanted = weight, wanted
        self._grams: dict[int, dict[int, Tensor]] = {}

    @cached_property
    def _digest(self) -> bytes:
        digest = hashlib.sha256(repr((tuple(self._weight.shape), str(self._weight.dtype))).encode())
        digest.update(self._weight.contiguous().view(torch.uint8).cpu().numpy().data)
        return digest.digest()

    def _once(self, what: str, folding: int, groups: int, compute: Callable[[], np.ndarray]) -> np.ndarray:
        key = (self._digest, what, folding, groups)
        if key not in _remembered:
            _remembered[key] = compute()
            if len(_remembered) > REMEMBERED:
                _remembered.popitem(last=False)
        _remembered.move_to_end(key)
        return _remembered[key]

    def of(self, folding: int, groups: int, basis: Basis) -> tuple[np.ndarray, float]:
        """Return the singular values for one pair, and the norm of the whole matrix in that folding."""
        compute = partial(chunk_values, self._weight, folding, groups, basis)
        values, norm = self._once("values", folding, groups, compute), self._norm(folding)
        return np.where(values < NOISE * norm, 0.0, values), norm

    def bounds(self, folding: int, groups: int, full: int) -> list[Callable[[], np.ndarray]]:
        """Return the functions that bound the relative errors at ranks 1, 2, ... full from below."""
        if (self._digest, "values", folding, groups) in _remembered:
            return []
        found = [self._by_first] if full < BY_MOMENTS else [self._by_moments, self._by_first]
        return [partial(bound, folding, groups) for bound in found]

    def _by_moments(self, folding: int, groups: int) -> np.ndarray:
        least = self._once("moments", folding, groups, lambda: least_dropped(self._gram(folding, groups)))
        return least / (self._norm(folding) or 1.0)

    def _by_first(self, folding: int, groups: int) -> np.ndarray:
        values = self._once("first", folding, groups, lambda: self._first_values(folding, groups))
        norm = self._norm(folding)
        return np.append(np.where(values < NOISE * norm, 0.0, values)[1:], 0.0) / (norm or 1.0)

    def _first_values(self, folding: int, groups: int) -> np.ndarray:
        values = eigenvalues(self._gram(folding, groups)[None])
        if not trusted(values, _readable(self._weight, folding, groups)):
            whole = fold(self._weight, folding)
            values = eigenvalues(_gram(whole[:, : whole.shape[1] // groups].double())[None])
        return _roots(values)[0]

    def _norm(self, folding: int) -> float:
        def compute() -> np.ndarray:
            if 1 in self._grams.get(folding, {}):
                return np.array(largest_eigenvalue(self._gram(folding, 1)) ** 0.5)
            return np.array(operator_norm(fold(self._weight, folding)))

        return float(self._once("norm", folding, 1, compute))

    def _gram(self, folding: int, groups: int) -> Tensor:
        if folding not in self._grams:
            self._grams[folding] = first_grams(self._weight, folding, [k for at, k in self._wanted if at == folding])
        return self._grams[folding][groups]


def least_dropped(lower: Tensor) -> np.ndarray:
    """Return what the largest dropped singular value is at least, at ranks 1, 2, ... n, by a Gram matrix (n, n).

    The j largest eigenvalues sum up to at most sqrt(j m2), where m2 is the sum of the squares of all; what is left of
    the trace m1 is spread over n - j. Only the lower triangle is read.
    """
    size, strict = len(lower), lower.tril(-1)
    diagonal = lower.diagonal().double()
    first = float(diagonal.sum())
    second = float(diagonal.square().sum()) + 2 * float(torch.linalg.vector_norm(strict, dtype=torch.float64)) ** 2
    ranks = np.arange(1, size)
    least = (first - np.sqrt(ranks * second)) / (size - ranks)
    later = np.maximum.accumulate(least[::-1])[::-1]  # errors never grow with the rank
    return np.append(np.sqrt(later.clip(min=0)), 0.0) * (1 - 1e-6)  # single precision must not make it too large


def first_grams(weight: Tensor, folding: int, wanted: list[int]) -> dict[int, Tensor]:
    """Return for every number of groups the Gram matrix of the first chunk's shorter side, its lower triangle.

    Few are computed: where the rows are the shorter side, that of a chunk is the sum of those of its parts; where the
    columns are, that of a part is the corner of its chunk's.
    """
    whole = fold(weight, folding)
    single, rows = weight.dtype != torch.float64, len(whole)
    found: dict[int, Tensor] = {}
    held, last = whole.new_zeros(()), 0
    for k in sorted((k for k in wanted if rows <= whole.shape[1] // k), reverse=True):
        end = whole.shape[1] // k
        part = whole[:, last:end]
        found[k] = held = held + gram((part.float() if single and rows >= LARGE else part.double())[None])[0]
        last = end
    corner = None
    for k in sorted(k for k in wanted if rows > whole.shape[1] // k):
        size = whole.shape[1] // k
        exact = not (single and size >= LARGE)
        if corner is None or (exact and corner.dtype != torch.float64):
            part = whole[:, :size]
            corner = gram((part.double() if exact else part.float()).T[None])[0]
        found[k] = corner[:size, :size]
    return found


def _gram(chunk: Tensor) -> Tensor:
    """Return the Gram matrix of the shorter side of a matrix."""
    return gram(short_side(chunk[None]))[0]


def _roots(values: Tensor) -> np.ndarray:
    return values.double().sqrt().cpu().numpy()


def _readable(weight: Tensor, folding: int, groups: int) -> int:
    """Return how many singular values of a chunk may be read: one more than the largest rank that saves weights."""
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
