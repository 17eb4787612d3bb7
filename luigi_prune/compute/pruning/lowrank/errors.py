"""How far decomposed layers are from what they replace: the estimate that ranks are chosen by, and the truth.

ALDS estimates the relative error of a layer in k chunks by the largest dropped singular value of a chunk over the
operator norm of the layer (arXiv 2107.11442). For one chunk that is the relative operator-norm error; for several it is
a lower bound of it, which the true error exceeds by up to sqrt(k).
"""

from __future__ import annotations

from torch import Tensor

from luigi_prune.compute.pruning.lowrank.decomposed import DecompositionError
from luigi_prune.compute.pruning.lowrank.norms import operator_norm
from luigi_prune.compute.pruning.lowrank.spectra import NOISE, Spectrum, whole_norm
from luigi_prune.compute.pruning.protocol import Decomposition


def error_of(weight: Tensor, choice: Decomposition, spectra: list[Spectrum]) -> DecompositionError:
    """Return the errors of `choice` for a layer with `weight` (f, c, k1, k2), by the basis that it is decomposed by."""
    spectrum = next(s for s in spectra if (s.folding, s.groups) == (choice.folding, choice.groups))
    assert spectrum.basis is not None
    values, _ = spectrum.basis.pairs(min(choice.rank + 1, spectrum.full))
    roots = values.double().sqrt()
    dropped = float(roots[:, choice.rank].max()) if choice.rank < spectrum.full else 0.0
    if choice.groups == 1:
        error = share(dropped, float(roots.max()))
        return DecompositionError(error, error)
    norm = spectrum.norm if spectrum.is_measured else whole_norm(weight, choice.folding, spectrum.basis)
    left = operator_norm(spectrum.basis.left_over(choice.rank).to(weight.dtype))
    return DecompositionError(share(dropped, norm), share(left, norm))


def share(part: float, whole: float) -> float:
    """Return `part` / `whole`, 0 where `part` is rounding."""
    return part / whole if part > NOISE * whole else 0.0
