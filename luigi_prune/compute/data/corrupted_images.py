"""Any image set after a corruption that is computed: `<data set>_C_<corruption>_<severity>`."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from luigi_prune.compute.data.corruptions import corrupt
from luigi_prune.compute.data.data_sources import RawData, Source


def read_corrupted(name: str, split: str, training_data: str, local_data: str) -> Source:
    """Return the "train" or "test" images of the data set that `name` begins with, corrupted."""
    from luigi_prune.compute.data import load_raw  # imports this module's package

    base, _, corruption = name.partition("_C_")
    kind, _, severity = corruption.partition("_")
    return corrupted(load_raw(base, split, training_data, local_data), kind, int(severity))


def corrupted(source: Source, name: str, severity: int) -> Source:
    """Return the source with corrupted inputs: arrays at once, files when they are read."""
    if isinstance(source, RawData):
        images = corrupted_arrays(source.images, name, severity)
        return RawData(images, source.targets, validation=source.validation)
    return _Corrupted(source, functools.partial(_corrupt_picture, name=name, severity=severity))


def corrupted_arrays(images: NDArray[np.uint8], name: str, severity: int) -> NDArray[np.uint8]:
    """Return all images corrupted, (samples, height, width[, 3])."""
    return np.stack([corrupt(image, name, severity, index) for index, image in enumerate(images)])


class _Corrupted(Source):
    """A source whose images are changed when they are read."""

    def __init__(self, source: Source, change: Any):
        self._source, self._change = source, change
        self.kind, self.targets, self.validation = source.kind, source.targets, source.validation
        self.random = source.random

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        image, target = self._source[index]
        return self._change(image, index), target


def _corrupt_picture(image: Image.Image, index: int, *, name: str, severity: int) -> Image.Image:
    return Image.fromarray(corrupt(np.asarray(image), name, severity, index))
