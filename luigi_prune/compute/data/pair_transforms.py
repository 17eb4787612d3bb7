"""Transforms of an image together with its mask, under the reference's names, made of torchvision's `transforms.v2`.

Each takes and returns (image, mask): a PIL image, or floats (3, height, width) after SegToTensor, and a
`tv_tensors.Mask` (height, width). Masks are resized by the nearest neighbour, and padded with the class `IGNORED`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

IGNORED = 255  # the class of pixels that losses and metrics of segmentation leave out
Pair = tuple[Any, Any]


@runtime_checkable
class PairTransform(Protocol):
    """A transform of (image, mask)."""

    of_pairs: bool

    def __call__(self, pair: Pair) -> Pair: ...


class SegRandomResize:
    """Resizes to a shorter edge drawn from min_size to max_size, both included."""

    of_pairs = True

    def __init__(self, min_size: int, max_size: int):
        if not 0 < min_size <= max_size:
            raise ValueError(f"expected sizes from 1 on, the smaller first, got {min_size} and {max_size}")
        self.min_size, self.max_size = min_size, max_size

    def __call__(self, pair: Pair) -> Pair:
        size = int(torch.randint(self.min_size, self.max_size + 1, ()))
        resized: Pair = v2.Resize(size)(pair)
        return resized


class SegRandomHorizontalFlip:
    """Mirrors with probability `flip_prob`."""

    of_pairs = True

    def __init__(self, flip_prob: float = 0.5):
        self._flip = v2.RandomHorizontalFlip(flip_prob)

    def __call__(self, pair: Pair) -> Pair:
        flipped: Pair = self._flip(pair)
        return flipped


class SegRandomCrop:
    """Cuts out `size` x `size` pixels at random; what is smaller is padded at the right and bottom first."""

    of_pairs = True

    def __init__(self, size: int):
        self._size = _square(size)
        self._crop = v2.RandomCrop(self._size)

    def __call__(self, pair: Pair) -> Pair:
        cut: Pair = self._crop(_padded(pair, self._size))
        return cut


class SegCenterCrop:
    """Cuts `size` x `size` pixels out of the middle; what is smaller is padded on both sides first."""

    of_pairs = True

    def __init__(self, size: int):
        self._size = _square(size)

    def __call__(self, pair: Pair) -> Pair:
        height, width = functional.get_size(pair[1])
        missing = [max(size - have, 0) for size, have in zip(self._size, (height, width), strict=True)]
        around = [missing[1] // 2, missing[0] // 2, -(-missing[1] // 2), -(-missing[0] // 2)]
        cut: Pair = v2.CenterCrop(self._size)(_pad(pair, around))
        return cut


class SegToTensor:
    """Returns floats (3, height, width) in [0, 1], and int64 class numbers (height, width)."""

    of_pairs = True

    def __call__(self, pair: Pair) -> Pair:
        image, mask = pair
        floats = functional.to_dtype(functional.to_image(image), torch.get_default_dtype(), scale=True)
        return floats, tv_tensors.Mask(mask, dtype=torch.int64)


class SegNormalize:
    """Normalises the channels of an image of floats; the mask stays."""

    of_pairs = True

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        self._normalize = v2.Normalize(list(mean), list(std))

    def __call__(self, pair: Pair) -> Pair:
        image, mask = pair
        if not isinstance(image, torch.Tensor):
            raise TypeError("SegNormalize comes after SegToTensor")
        return self._normalize(image), mask


DETERMINISTIC_PAIRS = (SegCenterCrop, SegToTensor, SegNormalize)


def _square(size: int | Sequence[int]) -> list[int]:
    sizes = [size, size] if isinstance(size, int) else [int(each) for each in size]
    if len(sizes) != 2 or min(sizes) < 1:
        raise ValueError(f"expected a size in pixels, or a height and a width, got {size}")
    return sizes


def _padded(pair: Pair, size: Sequence[int]) -> Pair:
    """Return the pair with at least `size` pixels, padded at the right and bottom."""
    height, width = functional.get_size(pair[1])
    return _pad(pair, [0, 0, max(size[1] - width, 0), max(size[0] - height, 0)])


def _pad(pair: Pair, around: list[int]) -> Pair:
    """Return the pair padded by `around` (left, top, right, bottom)."""
    if not any(around):
        return pair
    image, mask = pair
    return functional.pad(image, around, fill=0), functional.pad(mask, around, fill=IGNORED)
