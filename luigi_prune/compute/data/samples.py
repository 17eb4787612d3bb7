"""A split of a data set with its transforms: what the training loop, the evaluation and the pruning read from."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from luigi_prune.compute.data.sample_order import Indices
from luigi_prune.compute.data.transforms import BatchTransform, Draws, batched, build_transform, image_wise, is_random
from luigi_prune.config.schema import Component
from luigi_prune.errors import ConfigError
from luigi_prune.registry import plain

CACHE_BYTES = 1 << 30


@dataclass(frozen=True)
class RawData:
    """A data set as it lies on disk: images (samples, height, width[, 3]) of uint8 and targets (samples,) of int64.

    From outside also: inputs (samples, ...) of float32, which are tensors already, and float32 targets (regression).
    """

    images: np.ndarray
    targets: np.ndarray


class Samples:
    """The samples `chosen` of a data set, as tensors behind the transforms.

    What does not depend on chance is computed once, when a batch is first wanted, and kept as far as it takes at most
    `cache_bytes`. Raises ConfigError for transforms that cannot be applied to the images.
    """

    def __init__(
        self,
        raw: RawData,
        transforms: Sequence[Component],
        chosen: Indices | None = None,
        cache_bytes: int = CACHE_BYTES,
    ):
        if raw.images.dtype.kind == "f":  # there is nothing to turn into a tensor
            transforms = [component for component in transforms if component.type != "ToTensor"]
        self._transforms = [build_transform(component) for component in transforms]
        self.random = any(is_random(transform) for transform in self._transforms)
        self.targets = torch.tensor(raw.targets[slice(None) if chosen is None else chosen])
        self._images = raw.images
        self._chosen = np.arange(len(raw.targets)) if chosen is None else np.asarray(chosen, dtype=np.int64)
        self._cache_bytes = cache_bytes
        self._cache: Tensor | None = None
        self._steps: list[tuple[int, BatchTransform]] = []  # what is left to do to a batch cut from the cache
        self._prepared = False
        try:
            self.input_shape = tuple(self._one_by_one(np.zeros(1, dtype=np.int64), 0, 0).shape[1:])
        except (RuntimeError, TypeError, ValueError) as error:
            named = ", ".join(plain(component.type) for component in transforms)
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise ConfigError(
                f"transforms: {named} cannot be applied to images of shape {raw.images.shape[1:]}: {reason}"
            ) from error

    def __len__(self) -> int:
        return len(self._chosen)

    @property
    def in_memory(self) -> bool:
        """Whether batches are cut from tensors in memory; if not, worker processes are worth their cost."""
        self._prepare()
        return self._cache is not None

    def get(self, indices: Sequence[int] | Indices, epoch: int = 0, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Return (x, y) of the samples at `indices`: floats (batch, channels, height, width), int64 targets (batch,).

        Random transforms are drawn per sample from (seed, epoch, the sample's index in the data set).
        """
        self._prepare()
        positions = np.asarray(indices, dtype=np.int64)
        if self._cache is None:
            return self._one_by_one(positions, epoch, seed), self.targets[torch.from_numpy(positions)]
        where = torch.from_numpy(positions).to(self._cache.device, non_blocking=True)
        images = self._cache.index_select(0, where)
        if self._steps:
            draws = Draws(seed, epoch, self._chosen[positions])
            for stream, step in self._steps:
                images = step(images, draws, stream)
        return images, self.targets.index_select(0, where)

    def to(self, device: torch.device) -> Samples:
        """Move what is kept as tensors to `device`, if it fits well, and return self: batches are then cut there."""
        self._prepare()
        if self._cache is not None and self._cache.device != device and _has_room(device, self._cache.nbytes):
            self._cache = self._cache.to(device)
            self.targets = self.targets.to(device)
        return self

    def _prepare(self) -> None:
        """Compute what may be kept: all of it, all in front of the first random transform, or nothing."""
        if self._prepared:
            return
        self._prepared = True
        fits = 4 * len(self) * int(np.prod(self.input_shape)) <= self._cache_bytes
        steps = [(stream, step) for stream, step in enumerate(map(batched, self._transforms)) if step is not None]
        if len(steps) == len(self._transforms):
            # Everything from the first random transform on is done per batch, so that bytes are kept, not floats.
            ready = 0
            while fits and ready < len(steps) and not is_random(self._transforms[ready]):
                ready += 1
            self._cache, self._steps = self._through(steps[:ready]), steps[ready:]
        elif fits and not self.random:
            self._cache = self._one_by_one(np.arange(len(self)), 0, 0)

    def _through(self, steps: list[tuple[int, BatchTransform]]) -> Tensor:
        """Return all samples through `steps`, none of which is random; in pieces, for memory's sake."""
        pieces = []
        for chosen in np.array_split(self._chosen, -(-len(self) // 4096)):
            images = _channels_first(self._images[chosen])
            for stream, step in steps:
                images = step(images, Draws(0, 0, chosen), stream)
            pieces.append(images)
        return torch.cat(pieces).contiguous()

    def _one_by_one(self, positions: Indices, epoch: int, seed: int) -> Tensor:
        """Return the samples at `positions` through torchvision's own transforms."""
        if not len(positions):
            return torch.empty((0, *self.input_shape))
        torch_state, python_state = torch.get_rng_state(), random.getstate()
        try:
            return torch.stack(
                [
                    image_wise(self._transforms, self._images[index], int(index), seed, epoch)
                    for index in self._chosen[positions]
                ]
            )
        finally:
            torch.set_rng_state(torch_state)
            random.setstate(python_state)


def _channels_first(images: np.ndarray) -> Tensor:
    """Return (samples, height, width[, channels]) as a tensor with channels first; inputs of floats as they are."""
    tensor = torch.from_numpy(images)
    if tensor.is_floating_point():
        return tensor
    return tensor.unsqueeze(1) if tensor.ndim == 3 else tensor.permute(0, 3, 1, 2)


def _has_room(device: torch.device, size: int) -> bool:
    """Return whether `size` bytes leave most of a GPU's memory to the network."""
    return device.type != "cuda" or 4 * size < torch.cuda.mem_get_info(device)[0]
