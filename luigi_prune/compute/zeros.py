"""Zeros in tensors: set them, find them, count them, each in one fast pass; from a device with one wait for many."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

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


def read(numbers: Iterable[Tensor]) -> Iterator[Any]:
    """Yield tensors of shape () and one dtype as Python numbers: on a CPU one by one, from a device all at once."""
    numbers = iter(numbers)
    for number in numbers:
        if number.device.type == "cpu":
            yield number.item()
        else:
            yield from torch.stack([number, *(other.to(number.device) for other in numbers)]).tolist()


def equal(pairs: Iterable[tuple[Tensor, Tensor]]) -> Iterator[bool]:
    """Yield whether the tensors of each pair, both of one shape, are equal; read like `read`."""
    pairs = iter(pairs)
    for one, other in pairs:
        if one.device.type == "cpu":
            yield torch.equal(one, other)
        else:
            yield from read((left == right).all() for left, right in [(one, other), *pairs])


def counts_true(masks: Iterable[Tensor]) -> list[int]:
    """Return how many entries of each mask are True; on a CPU numpy counts them many times as fast as torch."""
    masks = list(masks)
    if all(mask.device.type == "cpu" for mask in masks):
        return [int(np.count_nonzero(mask.numpy())) for mask in masks]
    return list(read(torch.count_nonzero(mask) for mask in masks))


def count_true(mask: Tensor) -> int:
    """Return how many entries of a mask are True."""
    return counts_true([mask])[0]


def counts_nonzero(values: Iterable[Tensor]) -> list[int]:
    """Return how many entries of each tensor are not zero."""
    return counts_true(nonzero(value) for value in values)


def count_nonzero(value: Tensor) -> int:
    """Return how many entries are not zero."""
    return counts_nonzero([value])[0]


def places(mask: Tensor) -> Tensor:
    """Return where the flattened mask is True, in order; on a CPU numpy finds that many times as fast as torch."""
    if mask.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(mask.numpy()))
    return torch.nonzero(mask.flatten()).flatten()
