"""Singular values of a folded layer, for every (folding, groups), computed once for each weight, when they are read.

They come from the eigenvalues of the smaller Gram matrix: several times faster than a singular value decomposition.
Layers with 256 rows and columns or more are done in single precision where that is exact enough (see factors.py), all
others in double: exact to about 1e-8 of the largest, which is what single-precision weights hold.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor

from luigi_prune.compute.pruning.lowrank.factors import (
    LARGE,
    Basis,
    basis_of,
    eigenvalues,
    gram,
    trusted,
)
from luigi_prune.compute.pruning.lowrank.foldings import cost_per_rank, fold, full_rank, kernels

NOISE = 1e-7  # relative to the largest: smaller singular values are rounding of single precision, that is zero
REMEMBERED = 20_000  # spectra, a few hundred numbers each


@dataclass(frozen=True, eq=False)
class Spectrum:
    """What one layer's chunks lose at each rank, in one folding; computed when it is first read.

    `per_rank`: weights that one more rank in every group costs. `full`: the largest useful rank. `measure`: returns
    `values` and `norm`. `basis`: what the chunks' factors are cut from.
    """

    folding: int
    groups: int
    per_rank: int
    full: int
    measure: Callable[[], tuple[np.ndarray, float]]
    basis: Basis | None = None

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


def spectra_of(weight: Tensor, wanted: list[tuple[int, int]]) -> list[Spectrum]:
    """Return the spectra of `weight` (f, c, k1, k2) for each wanted (folding, groups).

    The first that is read measures all of them. Values of a weight seen before in this process are not computed again,
    whatever network it stood in. A single spectrum is read from its basis: the layer is going to be decomposed so.
    """
    f, c, *size = weight.shape
    shape = (f, c, size[0], size[1])
    bases = {pair: basis_of(weight, *pair) for pair in wanted}
    measured = _Measured(weight.detach(), wanted, bases if len(wanted) == 1 else {})
    return [
        Spectrum(
            folding, groups, cost_per_rank(shape, groups, folding), full_rank(shape, groups, folding),
            partial(measured.of, folding, groups), bases[folding, groups],
        )
        for folding, groups in wanted
    ]  # fmt: skip


_remembered: OrderedDict[tuple[bytes, bool, int, int], np.ndarray] = OrderedDict()


class _Measured:
    """The singular values of one weight in all wanted foldings and groups, measured together at the first question."""

    def __init__(self, weight: Tensor, wanted: list[tuple[int, int]], bases: dict[tuple[int, int], Basis]) -> None:
        self._weight, self._wanted, self._bases = weight, wanted, bases

    @cached_property
    def _values(self) -> dict[tuple[int, int], np.ndarray]:
        digest = hashlib.sha256(repr((tuple(self._weight.shape), str(self._weight.dtype))).encode())
        digest.update(self._weight.contiguous().view(torch.uint8).cpu().numpy().data)
        found = {}
        for folding in dict.fromkeys(folding for folding, _ in self._wanted):
            groups = [1, *(k for at, k in self._wanted if at == folding and k != 1)]
            # Both ways of computing agree but for rounding; what is read must not depend on who asked before.
            keys = {k: (digest.digest(), (folding, k) in self._bases, folding, k) for k in groups}
            for k in [k for k in groups if keys[k] not in _remembered and keys[k][1]]:
                _remembered[keys[k]] = self._from_basis(folding, k)
            new = [k for k in groups if keys[k] not in _remembered]
            if new:
                for k, values in singular_values(self._weight, folding, new).items():
                    _remembered[keys[k]] = values
            for k in groups:
                _remembered.move_to_end(keys[k])
                found[folding, k] = _remembered[keys[k]]
        while len(_remembered) > REMEMBERED:
            _remembered.popitem(last=False)
        return found

    def _from_basis(self, folding: int, groups: int) -> np.ndarray:
        values, _ = self._bases[folding, groups].pairs(_readable(self._weight, folding, groups))
        return _roots(values)

    def of(self, folding: int, groups: int) -> tuple[np.ndarray, float]:
        """Return the singular values for one pair, and the norm of the whole matrix in that folding."""
        values, norm = self._values[folding, groups], float(self._values[folding, 1].max(initial=0.0))
        return np.where(values < NOISE * norm, 0.0, values), norm


def singular_values(weight: Tensor, folding: int, wanted: list[int]) -> dict[int, np.ndarray]:
    """Return for every number of groups the chunks' singular values, float64 (groups, full rank), descending."""
    whole = fold(weight, folding)
    found: dict[int, np.ndarray] = {}
    large = [] if weight.dtype == torch.float64 else [k for k in wanted if min(_sides(whole, k)) >= LARGE]
    for k, grams in _grams(whole.float(), large):
        values = eigenvalues(grams)
        if trusted(values, _readable(weight, folding, k)):
            found[k] = _roots(values)
    for k, grams in _grams(whole.double(), [k for k in wanted if k not in found]):
        found[k] = _roots(eigenvalues(grams))
    return found


def _grams(whole: Tensor, wanted: list[int]) -> Iterator[tuple[int, Tensor]]:
    """Yield (groups, the Gram matrices of the chunks' shorter sides) for every number of groups.

    Few are computed: where the rows are the shorter side, that of a chunk is the sum of those of its parts; where the
    columns are, that of a part is a block on the diagonal of its chunk's.
    """
    held: dict[int, Tensor] = {}
    for k in sorted((k for k in wanted if len(whole) <= _sides(whole, k)[1]), reverse=True):
        finer = min((g for g in held if g % k == 0), default=None)
        if finer is None:
            held[k] = gram(_chunks(whole, k))
        else:
            held[k] = held[finer].unflatten(0, (k, finer // k)).sum(1)
        yield k, held[k]
    held = {}
    for k in sorted(k for k in wanted if len(whole) > _sides(whole, k)[1]):
        coarser = max((g for g in held if k % g == 0), default=None)
        if coarser is None:
            held[k] = gram(_chunks(whole, k).mT)
        else:
            parts = held[coarser].unflatten(2, (k // coarser, -1)).unflatten(1, (k // coarser, -1))
            held[k] = parts.diagonal(dim1=1, dim2=3).movedim(-1, 1).flatten(0, 1)
        yield k, held[k]


def _chunks(whole: Tensor, groups: int) -> Tensor:
    return whole.reshape(len(whole), groups, -1).movedim(1, 0)


def _sides(whole: Tensor, groups: int) -> tuple[int, int]:
    return whole.shape[0], whole.shape[1] // groups


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
