"""A split of a data set with its transforms, as read by training, evaluation and pruning."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from luigi_prune.compute.data.data_sources import RawData, Source
from luigi_prune.compute.data.sample_order import Indices
from luigi_prune.compute.data.transforms import (
    BatchTransform,
    Draws,
    batched,
    build_transform,
    check_kind,
    is_random,
    transformed,
)
from luigi_prune.compute.network_inputs import (
    Inputs,
    device_of,
    form,
    join,
    map_leaves,
    map_tensors,
    sample_shape,
    select,
    stack,
    tensors_of,
    to_device,
)
from luigi_prune.config.schema import Component
from luigi_prune.errors import ConfigError, first_line
from luigi_prune.registry import plain

__all__ = ["CACHE_BYTES", "RawData", "Samples"]

CACHE_BYTES = 1 << 30


class Samples:
    """The samples `chosen` of a data set, as tensors after the transforms.

    The results of deterministic transforms are computed for the first batch and kept if they take at most
    `cache_bytes`. Raises ConfigError for transforms that cannot be applied to the samples.
    """

    def __init__(
        self,
        source: Source,
        transforms: Sequence[Component],
        chosen: Indices | None = None,
        cache_bytes: int = CACHE_BYTES,
    ):
        if source.kind == "tensors":  # already
            transforms = [component for component in transforms if component.type != "ToTensor"]
        self._transforms = [build_transform(component) for component in transforms]
        check_kind(self._transforms, source.kind)
        self.random = source.random or any(is_random(transform) for transform in self._transforms)
        self._source = source
        self._chosen = np.arange(len(source)) if chosen is None else np.asarray(chosen, dtype=np.int64)
        # Those of pairs pass through the transforms, too.
        self.targets: Any = None
        if source.targets is not None:
            self.targets = map_leaves(lambda array: torch.tensor(array[self._chosen]), source.targets)
        self._cache_bytes = cache_bytes
        self._cache: Inputs | None = None
        self._steps: list[tuple[int, BatchTransform]] = []  # remaining transforms of a batch from the cache
        self._prepared = False
        try:
            first = self._one_by_one(np.zeros(1, dtype=np.int64), 0, 0)
        except (RuntimeError, TypeError, ValueError) as error:
            names = ", ".join(plain(component.type) for component in transforms)
            what = f"transforms: {names} cannot be applied to {_described(source)}"
            raise ConfigError(f"{what}: {first_line(error)}") from error
        self.input_shape: Any = sample_shape(first[0])  # of one sample, or a tuple or dictionary of such shapes
        self._nothing = select(first, slice(0))
        self.sample_bytes = _bytes_of(first if source.kind == "pairs" else first[0])

    def __len__(self) -> int:
        return len(self._chosen)

    @property
    def in_memory(self) -> bool:
        """Whether batches are sliced from tensors in memory; otherwise worker processes pay off."""
        self._prepare()
        return self._cache is not None

    def get(self, indices: Sequence[int] | Indices, epoch: int = 0, seed: int = 0) -> tuple[Inputs, Any]:
        """Return (x, y) of the samples at `indices`: floats (batch, channels, height, width), int64 targets (batch,).

        Both may be several tensors, as in `network_inputs`; targets of images with masks are (batch, height, width).

        Random transforms depend on (seed, epoch, the sample's index in the data set).
        """
        self._prepare()
        positions = np.asarray(indices, dtype=np.int64)
        if self._cache is None:
            return self._one_by_one(positions, epoch, seed)
        rows = torch.from_numpy(positions).to(device_of(self._cache), non_blocking=True)
        images = map_tensors(lambda tensor: tensor.index_select(0, rows), self._cache)
        if self._steps:
            draws = Draws(seed, epoch, self._chosen[positions])
            for stream, step in self._steps:
                images = step(images, draws, stream)
        return images, map_tensors(lambda tensor: tensor.index_select(0, rows), self.targets)

    def to(self, device: torch.device) -> Samples:
        """Move the cache and the targets to `device`, if there is room, and return self."""
        self._prepare()
        if self._cache is not None and device_of(self._cache) != device and _has_room(device, _bytes_of(self._cache)):
            self._cache = to_device(self._cache, device)
            self.targets = to_device(self.targets, device)
        return self

    def _prepare(self) -> None:
        """Fill the cache: after all transforms, before the first random one, or not at all."""
        if self._prepared:
            return
        self._prepared = True
        fits = len(self) * self.sample_bytes <= self._cache_bytes
        steps = [(stream, step) for stream, step in enumerate(map(batched, self._transforms)) if step is not None]
        if isinstance(self._source, RawData) and len(steps) == len(self._transforms):
            # From the first random transform on, all is done per batch: the cache then holds bytes instead of floats.
            ready = 0
            while fits and ready < len(steps) and not is_random(self._transforms[ready]):
                ready += 1
            self._cache, self._steps = self._through(self._source.images, steps[:ready]), steps[ready:]
        elif fits and not self.random:
            self._cache, self.targets = self._one_by_one(np.arange(len(self)), 0, 0)

    def _through(self, stored: Any, steps: list[tuple[int, BatchTransform]]) -> Inputs:
        """Return all samples after `steps`, none of which is random; in pieces, to save memory."""
        pieces = []
        for chosen in np.array_split(self._chosen, -(-len(self) // 4096)):
            images = map_leaves(lambda array: _channels_first(array[chosen]), stored)  # noqa: B023
            for stream, step in steps:
                images = step(images, Draws(0, 0, chosen), stream)
            pieces.append(images)
        return map_tensors(lambda tensor: tensor.contiguous(), join(pieces))

    def _one_by_one(self, positions: Indices, epoch: int, seed: int) -> tuple[Inputs, Any]:
        """Return (x, y) of the samples at `positions` after torchvision's transforms, one by one."""
        if not len(positions):
            return self._nothing
        torch_state, python_state = torch.get_rng_state(), random.getstate()
        try:
            samples = [
                transformed(self._transforms, self._source, int(index), seed, epoch)
                for index in self._chosen[positions]
            ]
        finally:
            torch.set_rng_state(torch_state)
            random.setstate(python_state)
        _check_forms(samples)
        if self._source.kind == "pairs":
            together: tuple[Inputs, Any] = stack(samples)
            return together
        rows = torch.from_numpy(positions)
        return stack(samples), map_tensors(lambda tensor: tensor[rows.to(tensor.device)], self.targets)


def _described(source: Source) -> str:
    """Return the kind and shape of the inputs, for messages."""
    kind = {"images": "images", "pairs": "images with masks", "tensors": "inputs"}[source.kind]
    if isinstance(source, RawData):
        return f"{kind} of shape {sample_shape(source.images)}"
    width, height = getattr(source[0][0], "size", (0, 0))
    return f"{kind} such as the first, {height}x{width}"


def _check_forms(samples: Sequence[Inputs]) -> None:
    """Raise ConfigError if samples have different shapes, and hence make no batch."""
    shapes = [form(sample) for sample in samples]
    other = next((index for index, shape in enumerate(shapes) if shape != shapes[0]), None)
    if other is not None:
        first, second = (map_tensors(lambda tensor: tuple(tensor.shape), samples[index]) for index in (0, other))
        raise ConfigError(
            f"transforms: samples of the shapes {first} and {second} are no batch; bring them to one size, for "
            "instance by Resize and CenterCrop, SegCenterCrop or SegRandomCrop"
        )


def _bytes_of(inputs: Inputs) -> int:
    return sum(tensor.nbytes for tensor in tensors_of(inputs))


def _channels_first(images: np.ndarray) -> Tensor:
    """Return (samples, height, width[, channels]) as a tensor with channels first; other inputs are unchanged."""
    tensor = torch.from_numpy(images)
    if tensor.dtype is not torch.uint8:
        return tensor
    return tensor.unsqueeze(1) if tensor.ndim == 3 else tensor.permute(0, 3, 1, 2)


def _has_room(device: torch.device, size: int) -> bool:
    """Return whether `size` bytes leave most of a GPU's memory free."""
    return device.type != "cuda" or 4 * size < torch.cuda.mem_get_info(device)[0]
