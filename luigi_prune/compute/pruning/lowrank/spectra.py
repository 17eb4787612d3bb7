"""Singular values of a folded layer, for every (folding, groups): computed when they are read, once for each weight.

They come from the eigenvalues of the smaller Gram matrix: several times faster than a singular value decomposition.
Layers with 256 rows and columns or more are done in single precision where that is exact enough (see factors.py), all
others in double: exact to about 1e-8 of the largest, which is what single-precision weights hold.

Where many (folding, groups) of a layer compete, few of them come into question at a given size of the network. What
most of them would lose at least is known for little: from two moments of the first chunk's Gram matrix, then from that
chunk's singular values alone, then from those of a few. Whoever chooses by these bounds measures what was chosen, until
all of it is measured (`Spectrum.refine`, `paths.settled`): that is the choice by the singular values of all chunks.
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

from luigi_prune.compute.pruning.lowrank.bounds import first_grams, least_dropped
from luigi_prune.compute.pruning.lowrank.factors import Basis, basis_of, eigenvalues, gram, short_side, trusted
from luigi_prune.compute.pruning.lowrank.foldings import cost_per_rank, fold, full_rank, kernels
from luigi_prune.compute.pruning.lowrank.norms import largest_eigenvalue, operator_norm

NOISE = 1e-7  # relative to the largest: smaller singular values are rounding of single precision, that is zero
REMEMBERED = 40_000  # arrays, of a few hundred numbers each
SOME = 8  # chunks that are looked at before all are, where there are many more
WORTH_SOME = 2**16  # entries of a layer from which on that pays
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
        return self.measure()

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
        return self.bounds[0]() if self.bounds and not self.is_measured else self.errors()

    def refine(self) -> bool:
        """Make `least_errors` more exact; return False where they are the `errors` already."""
        if not self.bounds:
            return False
        self.bounds = [] if self.is_measured else self.bounds[1:]
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
        measure = partial(compete.of if compete else partial(_alone, weight), folding, groups, basis)
        bounds = compete.bounds(folding, groups, full) if compete else []
        found.append(Spectrum(folding, groups, per_rank, full, measure, basis, bounds))
    return found


def _alone(weight: Tensor, folding: int, groups: int, basis: Basis) -> tuple[np.ndarray, float]:
    values = chunk_values(weight, folding, groups, basis)
    norm = float(values.max(initial=0.0)) if groups == 1 else whole_norm(weight, folding, basis)
    return np.where(values < NOISE * norm, 0.0, values), norm


def whole_norm(weight: Tensor, folding: int, basis: Basis) -> float:
    """Return the operator norm of the whole folded matrix."""
    return operator_norm(fold(weight, folding)) if basis.whole is None else largest_eigenvalue(basis.whole) ** 0.5


def chunk_values(weight: Tensor, folding: int, groups: int, basis: Basis) -> np.ndarray:
    """Return the chunks' singular values, float64 (groups, full rank), descending."""
    return _roots(basis.pairs(_readable(weight, folding, groups))[0])


_remembered: OrderedDict[tuple[bytes, str, int, int], np.ndarray] = OrderedDict()


def forget() -> None:
    """Forget all that has been read of any weight."""
    _remembered.clear()


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
        found: list[Callable[[], np.ndarray]] = []
        if full >= BY_MOMENTS:
            found.append(partial(self._by_moments, folding, groups))
        found.append(partial(self._by_first, folding, groups, 1))
        if groups > 2 * SOME and self._weight.numel() >= WORTH_SOME:
            found.append(partial(self._by_first, folding, groups, SOME))
        return found

    def _by_moments(self, folding: int, groups: int) -> np.ndarray:
        least = self._once("moments", folding, groups, lambda: least_dropped(self._gram(folding, groups)))
        return least / (self._norm(folding) or 1.0)

    def _by_first(self, folding: int, groups: int, count: int) -> np.ndarray:
        """Return the bound by the singular values of the first `count` chunks."""
        values = self._once(f"first {count}", folding, groups, lambda: self._first_values(folding, groups, count))
        norm = self._norm(folding)
        return np.append(np.where(values < NOISE * norm, 0.0, values)[1:], 0.0) / (norm or 1.0)

    def _first_values(self, folding: int, groups: int, count: int) -> np.ndarray:
        if count == 1:
            values = eigenvalues(self._gram(folding, groups)[None])
            if trusted(values, _readable(self._weight, folding, groups)):
                return _roots(values)[0]
        whole = fold(self._weight, folding)
        some = whole[:, : count * (whole.shape[1] // groups)].double()
        chunks = some.unflatten(1, (count, -1)).movedim(1, 0)
        return _roots(eigenvalues(gram(short_side(chunks)))).max(axis=0)

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
