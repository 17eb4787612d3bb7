"""Setting, finding and counting zeros in one fast pass; results for many tensors cost one synchronisation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Integers as wide as floats: a product with False clears all bits, even those of NaN. `masked_fill_` does the same, but
# if a random half is pruned its branches are mispredicted, and on a CPU it takes ten times as long.
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@torch.no_grad()
def keep_only(value: Tensor, kept: Tensor) -> None:
    """Set to zero, in place, the entries of `value` for which `kept` (bool, of its shape) is False."""
    width = value.element_size()
    if width in _BITS and not value.is_quantized:
        value.detach().view(_BITS[width]).mul_(kept)
    else:
        value.masked_fill_(~kept, 0)


def keep_vectors(values: list[Tensor], kept: list[Tensor]) -> None:
    """Do what `keep_only` does for each of many vectors: on a device in a few operations for all of one type."""
    groups: dict[tuple[torch.dtype, torch.device], list[int]] = {}
    for place, value in enumerate(values):
        groups.setdefault((value.dtype, value.device), []).append(place)
    for (dtype, device), places in groups.items():
        if device.type == "cpu" or dtype.itemsize not in _BITS or any(values[place].dim() != 1 for place in places):
            for place in places:
                keep_only(values[place], kept[place])
            continue
        flat = torch.cat([kept[place] for place in places]).to(_BITS[dtype.itemsize])
        bits = [values[place].detach().view(_BITS[dtype.itemsize]) for place in places]
        torch._foreach_mul_(bits, list(flat.split([len(each) for each in bits])))


def both(ones: list[Tensor], others: list[Tensor]) -> list[Tensor]:
    """Return the conjunctions of pairs of boolean tensors of one shape; on a device in a few operations for all."""
    if all(one.device.type == "cpu" for one in ones):
        return [one & other for one, other in zip(ones, others, strict=True)]
    return list(torch._foreach_mul(ones, others)) if ones else []


def bits_of(kept: Tensor, dtype: torch.dtype) -> Tensor | None:
    """Return a mask for `keep_bits`: integers as wide as `dtype` with all bits set if `kept`, else none set.

    It takes more memory than the mask and half of the time. None for a `dtype` that has no such integers.
    """
    width = dtype.itemsize
    return kept.to(_BITS[width]).neg_() if width in _BITS and dtype.is_floating_point else None


@torch.no_grad()
def keep_bits(value: Tensor, bits: Tensor) -> None:
    """Do what `keep_only` does, for a mask by `bits_of`."""
    value.detach().view(bits.dtype).bitwise_and_(bits)


def nonzero(value: Tensor) -> Tensor:
    """Return the mask of non-zero entries: by conversion, many times as fast as a comparison."""
    return value.detach().bool()


def to_numbers(scalars: Iterable[Tensor]) -> Iterator[Any]:
    """Yield tensors of shape () and one dtype as Python numbers: lazily on a CPU, all at once from a device."""
    scalars = iter(scalars)
    for scalar in scalars:
        if scalar.device.type == "cpu":
            yield scalar.item()
        else:
            yield from torch.stack([scalar, *(other.to(scalar.device) for other in scalars)]).tolist()


def equal(pairs: Iterable[tuple[Tensor, Tensor]]) -> Iterator[bool]:
    """Yield whether the tensors of each pair, both of one shape, are equal; like `to_numbers`."""
    pairs = iter(pairs)
    for one, other in pairs:
        if one.device.type == "cpu":
            yield torch.equal(one, other)
        else:
            yield from to_numbers((left == right).all() for left, right in [(one, other), *pairs])


def sums(values: list[Tensor]) -> list[Tensor]:
    """Return the sum of each tensor, or on a device that of its absolute values, in a few operations for all."""
    if all(value.device.type == "cpu" for value in values):
        return [value.sum() for value in values]
    return list(torch._foreach_norm([value.to(values[0].device) for value in values], 1))


def all_true(masks: Iterable[Tensor]) -> bool:
    """Return whether all entries of boolean tensors are True: lazily on a CPU, with one synchronisation on a device."""
    masks = iter(masks)
    for mask in masks:
        if mask.device.type != "cpu":
            return bool(torch.cat([mask.flatten(), *(other.to(mask.device).flatten() for other in masks)]).all())
        if not bool(mask.all()):
            return False
    return True


def any_true(vectors: list[Tensor]) -> list[bool]:
    """Return for each boolean vector whether an entry is True, with one synchronisation."""
    if not vectors:
        return []
    flat = torch.cat(vectors).cpu().numpy()
    lengths = [len(vector) for vector in vectors]
    ends = np.cumsum(lengths)
    return [bool(flat[end - length : end].any()) for end, length in zip(ends, lengths, strict=True)]


def counts_true(masks: Iterable[Tensor]) -> list[int]:
    """Return the number of True entries of each mask; on a CPU numpy counts many times as fast as torch."""
    masks = list(masks)
    if all(mask.device.type == "cpu" for mask in masks):
        return [int(np.count_nonzero(mask.numpy())) for mask in masks]
    return list(to_numbers(mask.sum() for mask in masks))


def count_true(mask: Tensor) -> int:
    """Return the number of True entries of a mask."""
    return counts_true([mask])[0]


def counts_nonzero(values: Iterable[Tensor]) -> list[int]:
    """Return the number of non-zero entries of each tensor."""
    values = list(values)
    if all(value.device.type == "cpu" for value in values):
        return counts_true(nonzero(value) for value in values)
    return list(to_numbers(torch.count_nonzero(value.detach()) for value in values))


def count_nonzero(value: Tensor) -> int:
    """Return the number of non-zero entries."""
    return counts_nonzero([value])[0]


def places(mask: Tensor) -> Tensor:
    """Return the indices of True entries in the flattened mask; on a CPU numpy is many times as fast as torch."""
    if mask.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(mask.numpy()))
    return torch.nonzero(mask.flatten()).flatten()
