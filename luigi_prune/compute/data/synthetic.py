"""Synthetic samples with the shapes and classes of another data set, to try an experiment without its files."""

from __future__ import annotations

from typing import Any

import numpy as np
from torchvision import tv_tensors

from luigi_prune import registry
from luigi_prune.compute.data.data_sources import Kind, RawData, Source
from luigi_prune.registry import DatasetRow
from luigi_prune.registry.dataset_families import SMALL_EDGE, SYNTHETIC
from luigi_prune.seeds import derive_seed

SAMPLES = {"train": 160, "test": 40}
FEWER = {"train": 60, "test": 16}
"""The numbers of samples of large images."""
_TOKENS = 100


class _Pairs(Source):
    """Images with a class per pixel."""

    kind: Kind = "pairs"

    def __init__(self, images: np.ndarray, masks: np.ndarray):
        self._images, self._masks = images, masks

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        from PIL import Image

        return Image.fromarray(self._images[index]), tv_tensors.Mask(self._masks[index])


def read_synthetic(name: str, split: str, training_data: str, local_data: str) -> Source:
    """Return samples that depend on nothing but the name and the split; reads no folder.

    Classes differ in brightness, so that there is something to learn.
    """
    row: DatasetRow = registry.find("dataset", name)
    source = name.removeprefix(SYNTHETIC)
    random = np.random.default_rng(derive_seed(0, "synthetic", source, split))
    large = isinstance(row.input_shape, tuple) and row.input_shape[-1] >= SMALL_EDGE
    count = (FEWER if large else SAMPLES)[split]
    if isinstance(row.input_shape, dict):
        return _tokens(row, random, count)
    if len(row.input_shape) == 1:
        vectors = random.normal(size=(count, *row.input_shape)).astype(np.float32)
        return RawData(vectors, (vectors[:, 0] > 0).astype(np.int64) if row.labelled else None)
    channels, height, width = row.input_shape
    classes = random.integers(row.num_classes or 2, size=count)
    bright = 255 * (classes + 1) / ((row.num_classes or 2) + 1)
    shape = (count, height, width) if channels == 1 else (count, height, width, channels)
    noise = random.normal(0, 40, shape)
    images = np.clip(bright.reshape(-1, *[1] * (len(shape) - 1)) + noise, 0, 255).astype(np.uint8)
    if row.masks:
        masks = np.broadcast_to(classes[:, None, None], (count, height, width)).astype(np.uint8)
        return _Pairs(images, masks.copy())
    return RawData(images, classes.astype(np.int64) if row.num_classes else bright.astype(np.float32)[:, None] / 255)


def _tokens(row: DatasetRow, random: np.random.Generator, count: int) -> RawData:
    """Return token numbers, masks and labels, as the loaders of GLUE do."""
    labels = random.integers(row.num_classes or 2, size=count)
    inputs = {name: np.zeros((count, *shape), dtype=np.int64) for name, shape in row.input_shape.items()}
    length = row.input_shape["input_ids"][0]
    inputs["input_ids"] = random.integers(1, _TOKENS, (count, length)) + _TOKENS * labels[:, None]
    inputs["attention_mask"] = np.ones((count, length), dtype=np.int64)
    targets = labels if row.num_classes else labels.astype(np.float32)
    inputs["labels"] = targets
    return RawData(inputs, targets)
