"""The errors of decomposed layers: the estimate that ranks are chosen by, and the true error.

ALDS estimates the relative error of a layer in k chunks by the largest dropped singular value of a chunk over the
operator norm of the layer (arXiv 2107.11442). For one chunk that is the relative operator-norm error; for several it is
a lower bound, which the true error exceeds by a factor of up to sqrt(k).
"""

from __future__ import annotations

import torch
from torch import Tensor

from luigi_prune.compute.pruning.low_rank.decomposed import DecompositionError
from luigi_prune.compute.pruning.low_rank.factors import gram
from luigi_prune.compute.pruning.low_rank.norms import largest_eigenvalue, operator_norm
from luigi_prune.compute.pruning.low_rank.spectra import NOISE, Spectrum, matrix_norm
from luigi_prune.compute.pruning.problem.records import Decomposition

CLEAR = 0.2  # relative to the layer's norm: the norm of a difference that single precision leaves in a subtraction


def decomposition_error(weight: Tensor, choice: Decomposition, spectra: list[Spectrum]) -> DecompositionError:
    """Return the errors of `choice` for a layer with `weight` (f, c, k1, k2), from its basis in `spectra`."""
    spectrum = next(s for s in spectra if (s.folding, s.groups) == (choice.folding, choice.groups))
    assert spectrum.basis is not None
    values, _ = spectrum.basis.pairs(min(choice.rank + 1, spectrum.full))
    roots = values.double().sqrt()
    dropped = float(roots[:, choice.rank].max()) if choice.rank < spectrum.full else 0.0
    if choice.groups == 1:
        error = relative_error(dropped, float(roots.max()))
        return DecompositionError(error, error)
    norm = spectrum.norm if spectrum.is_measured else matrix_norm(weight, choice.folding, spectrum.basis)
    residual = _residual_norm(spectrum, choice.rank, norm, weight.dtype)
    return DecompositionError(relative_error(dropped, norm), relative_error(residual, norm))


def _residual_norm(spectrum: Spectrum, rank: int, norm: float, dtype: torch.dtype) -> float:
    """Return the operator norm of the difference of the folded matrices.

    If fewer components are kept than dropped, their Gram matrix is subtracted from that of the layer, which is known:
    exact enough unless little is left.
    """
    assert spectrum.basis is not None
    if spectrum.grams is not None and 2 * rank < spectrum.full:
        kept, whole = spectrum.basis.approximation(rank).to(dtype), spectrum.grams.whole
        if len(kept) == len(whole):
            residual = max(0.0, largest_eigenvalue(whole - gram(kept.to(whole)[None])[0])) ** 0.5
            if residual > CLEAR * norm:
                return residual
    return operator_norm(spectrum.basis.residual(rank).to(dtype))


def relative_error(error: float, norm: float) -> float:
    """Return `error` / `norm`, 0 if `error` is within rounding."""
    return error / norm if error > NOISE * norm else 0.0
