"""Networks whose output does not depend on their input."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from luigi_prune.compute.network_inputs import Inputs, first_and_last, tensors_of
from luigi_prune.compute.pruning.engine.trial import by_sample, outputs_of

ROUNDING = 1e-6  # relative to the largest; outputs for two samples that differ by less are the same
CLEARLY = 1e-4  # likewise; outputs for two samples that differ by more do so not by rounding


def ignores_input(
    network: nn.Module, example: Inputs, outputs: Sequence[Tensor] = (), tolerance: float = ROUNDING
) -> bool:
    """Return whether the outputs of `network` are the same, to `tolerance`, for all samples of the example.

    For most networks the first and the last sample, data and noise, are enough. Samples that are equal show nothing.
    `outputs`: results of `by_sample` that are computed already; if they clearly differ, the network is not run again.
    """
    if any(not _is_alike(value, CLEARLY) for value in outputs if bool(torch.isfinite(value).all())):
        return False
    if all(bool((value == value[:1]).all()) for value in tensors_of(example)):
        return False
    return all(_is_constant(network, inputs, tolerance) for inputs in (first_and_last(example), example))


def _is_constant(network: nn.Module, inputs: Inputs, tolerance: float) -> bool:
    outputs = by_sample(outputs_of(network, [inputs]), inputs)
    return bool(outputs) and all(_is_alike(value, tolerance) for value in outputs)


def _is_alike(outputs: Tensor, tolerance: float) -> bool:
    """Return whether the outputs of all samples differ by at most `tolerance`, relative to the largest of them.

    Sums round in proportion to their terms, so that a small output may differ by more of its own size.
    """
    first = outputs[:1]
    if not outputs.numel() or not (outputs.is_floating_point() or outputs.is_complex()):
        return bool((outputs == first).all())
    differences = torch.where(outputs == first, 0, (outputs - first).abs())  # infinite ones may be equal, too
    largest = torch.where(outputs.isfinite(), outputs.abs(), 0).amax()
    return bool((differences <= tolerance * largest).all())
