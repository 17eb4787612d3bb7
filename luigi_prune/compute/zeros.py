"""Zeros in tensors: set them, find them, count them, each in one fast pass."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

# Whole numbers as wide as floats: a product with False is all bits zero, whatever the float was. `masked_fill_` does
# the same, but where a random half is cut its branches are mispredicted: on a CPU it takes ten times as long.
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@torch.no_grad()
def keep_only(value: Tensor, kept: Tensor) -> None:
    """Set to zero, in place, the entries of `value` where `kept` (bool, of its shape) is False."""
    width = value.element_size()
    if width in _BITS and not value.is_quantized:
        value.detach().view(_BITS[width]).mul_(kept)
    else:
        value.masked_fill_(~kept, 0)


def nonzero(value: Tensor) -> Tensor:
    """Return where `value` is not zero: a conversion, many times as fast as a comparison."""
    return value.detach().bool()


def count_true(mask: Tensor) -> int:
    """Return how many entries of a mask are True; on a CPU numpy counts them many times as fast as torch."""
    return int(np.count_nonzero(mask.numpy())) if mask.device.type == "cpu" else int(torch.count_nonzero(mask))


def count_nonzero(value: Tensor) -> int:
    """Return how many entries are not zero."""
    return count_true(nonzero(value))


def places(mask: Tensor) -> Tensor:
    """Return where the flattened mask is True, in order; on a CPU numpy finds that many times as fast as torch."""
    if mask.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(mask.numpy()))
    return torch.nonzero(mask.flatten()).flatten()
