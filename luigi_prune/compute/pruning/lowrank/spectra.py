"""Singular values of a folded layer, for every (folding, groups), computed once for each weight.

They come from the eigenvalues of the smaller Gram matrix in double precision: several times faster than a singular
value decomposition, and exact to about 1e-8 of the largest, which is what single-precision weights hold.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from luigi_prune.compute.pruning.lowrank.foldings import cost_per_rank, fold_chunks, full_rank, kernels

NOISE = 1e-7  # relative to the largest: smaller singular values are rounding of single precision, that is zero
REMEMBERED = 20_000  # spectra, a few hundred numbers each


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The singular values of one layer's chunks in one folding: float64 of shape (groups, full rank), descending.

    `per_rank`: weights that one more rank in every group costs. `norm`: the operator norm of the whole folded matrix.
    """

    folding: int
    groups: int
    per_rank: int
    values: np.ndarray
    norm: float

    def errors(self) -> np.ndarray:
        """Return the relative error at ranks 1, 2, ... full: the largest dropped singular value of a chunk over `norm`.

        (ALDS, arXiv 2107.11442.)
        """
        dropped = self.values[:, 1:].max(axis=0, initial=0.0)
        return np.append(dropped, 0.0) / (self.norm or 1.0)


_remembered: OrderedDict[tuple[bytes, int, int], np.ndarray] = OrderedDict()


def spectra_of(weight: Tensor, wanted: list[tuple[int, int]]) -> list[Spectrum]:
    """Return the spectra of `weight` (f, c, k1, k2) for each wanted (folding, groups).

    Values of a weight seen before in this process are not computed again, whatever network it stood in.
    """
    digest = hashlib.blake2b(weight.detach().cpu().numpy().tobytes(), digest_size=16)
    digest.update(repr((tuple(weight.shape), str(weight.dtype))).encode())
    double: Tensor | None = None
    found = []
    f, c, *size = weight.shape
    shape = (f, c, size[0], size[1])
    norms: dict[int, float] = {}
    for folding, groups in wanted:
        pairs = [(folding, groups)] if folding in norms else [(folding, 1), (folding, groups)]
        for pair in pairs:
            key = (digest.digest(), *pair)
            if key not in _remembered:
                double = weight.detach().double() if double is None else double
                _remembered[key] = singular_values(double, *pair)
            _remembered.move_to_end(key)
            if pair[1] == 1:
                norms[folding] = float(_remembered[key].max(initial=0.0))
        values = _remembered[digest.digest(), folding, groups]
        values = np.where(values < NOISE * norms[folding], 0.0, values)
        found.append(Spectrum(folding, groups, cost_per_rank(shape, groups, folding), values, norms[folding]))
    while len(_remembered) > REMEMBERED:
        _remembered.popitem(last=False)
    assert all(s.values.shape == (s.groups, full_rank(shape, s.groups, s.folding)) for s in found)
    return found


def singular_values(weight: Tensor, folding: int, groups: int) -> np.ndarray:
    """Return the singular values of the chunks of `weight`, float64 of shape (groups, full rank), descending."""
    chunks = fold_chunks(weight, folding, groups)
    wide = chunks.shape[1] <= chunks.shape[2]
    gram = chunks @ chunks.mT if wide else chunks.mT @ chunks
    return torch.linalg.eigvalsh(gram).flip(-1).clamp_min(0).sqrt().cpu().numpy()


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
