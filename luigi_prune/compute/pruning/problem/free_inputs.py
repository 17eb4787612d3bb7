"""Which of several inputs may take other numbers: probes and checks put noise there, and only there.

Token numbers index tables, and masks select positions: noise in them is no valid input. Integers are never replaced,
and neither are float tensors that are masks by their numbers and, for masks of 0 and 1, by their shape: the noughts and
ones of an example may also be data (a black image, flags), which must not count as always zero.
"""

from __future__ import annotations

import torch
from torch import Tensor

from luigi_prune.compute.network_inputs import Inputs, tensors_of

FORBIDDEN = -1e3  # numbers from here down, added to attention scores, exclude positions


def free_inputs(inputs: Inputs) -> list[bool]:
    """Return for each tensor of `inputs`, in the order of `map_tensors`, whether other numbers are as valid."""
    tensors = tensors_of(inputs)
    if len(tensors) == 1:
        return [tensors[0].is_floating_point()]
    excluding = [each.is_floating_point() and _excludes(each) for each in tensors]
    binary = [each.is_floating_point() and _is_binary(each) for each in tensors]
    data = [each for each, *masking in zip(tensors, excluding, binary, strict=True) if not any(masking)]
    return [
        each.is_floating_point() and not excludes and not (zero_one and any(_fits(each, other) for other in data))
        for each, excludes, zero_one in zip(tensors, excluding, binary, strict=True)
    ]


def _excludes(value: Tensor) -> bool:
    """Return whether a tensor is a mask to be added to scores: minus infinity, or 0 and large negative numbers."""
    if bool(torch.isneginf(value).any()):
        return True
    forbidden = value <= FORBIDDEN
    return bool(forbidden.any()) and bool((forbidden | (value == 0)).all())


def _is_binary(value: Tensor) -> bool:
    return bool(((value == 0) | (value == 1)).all())


def _fits(mask: Tensor, data: Tensor) -> bool:
    """Return whether `mask` has an axis of positions, its last one of more than one entry, that `data` has, too."""
    axis = position_axis(mask)
    return axis > 0 and mask.shape[axis] in data.shape[1:]


def position_axis(value: Tensor) -> int:
    """Return the last axis with more than one entry; 0 if there is none but that of the samples."""
    return max((axis for axis in range(1, value.dim()) if value.shape[axis] > 1), default=0)


def other_mask(mask: Tensor, samples: int) -> Tensor:
    """Return a valid mask in place of `mask` for `samples` samples.

    In masks of 0 and 1 the two alternate along the positions, so that over two samples every entry takes both values
    and no row is all zero. Other masks are repeated.
    """
    rows = mask[torch.arange(samples, device=mask.device) % len(mask)]
    if not mask.is_floating_point() or not _is_binary(mask):
        return rows
    axis = position_axis(mask)
    numbers = torch.arange(rows.shape[axis], device=mask.device).view(-1, *[1] * (rows.dim() - 1 - axis))
    odd = torch.arange(samples, device=mask.device).view(-1, *[1] * (rows.dim() - 1))
    return ((numbers * (axis > 0) + odd + 1) % 2).to(rows.dtype).expand_as(rows).clone()
