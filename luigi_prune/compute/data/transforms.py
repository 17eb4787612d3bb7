"""The transforms of an experiment, applied to batches of images.

torchvision's transforms take one PIL image at a time. The usual ones (padding, crops, flips, to tensor, normalisation)
are applied here to a batch of tensors, with the same result and about ten times faster. If any other transform is
named, all are torchvision's, image by image.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torchvision.transforms as tv
from PIL import Image
from torch import Tensor

from luigi_prune import registry
from luigi_prune.compute.data.data_sources import Source
from luigi_prune.compute.data.dequantisation import RandomNoise
from luigi_prune.compute.data.pair_transforms import DETERMINISTIC_PAIRS, PairTransform
from luigi_prune.compute.data.sample_order import Indices, uniforms
from luigi_prune.compute.named import resolve
from luigi_prune.compute.network_inputs import Inputs, leaves, map_leaves
from luigi_prune.config.schema import Component
from luigi_prune.errors import ConfigError
from luigi_prune.seeds import derive_seed

# All other transforms are assumed to be random: if one is not, that costs time but gives no wrong result.
_DETERMINISTIC = (
    tv.CenterCrop,
    tv.Grayscale,
    tv.Normalize,
    tv.Pad,
    tv.PILToTensor,
    tv.Resize,
    tv.ToPILImage,
    tv.ToTensor,
    *DETERMINISTIC_PAIRS,
)


@dataclass(frozen=True)
class Draws:
    """The random numbers of one batch, a function of seed, epoch and each sample's index."""

    seed: int
    epoch: int
    indices: Indices

    def uniform(self, stream: int) -> np.ndarray:
        """Return one number in [0, 1) per sample, the `stream`-th."""
        return uniforms(self.seed, self.epoch, stream, self.indices)


class BatchTransform(Protocol):
    """A transform of a batch (samples, channels, height, width); each has a `stream` of random numbers of its own."""

    def __call__(self, images: Tensor, draws: Draws, stream: int) -> Tensor: ...


_ENUMERATIONS = {"interpolation": tv.InterpolationMode, "policy": tv.AutoAugmentPolicy}


def build_transform(component: Component) -> Any:
    """Return torchvision's transform `component.type` built with its keywords, or raise ConfigError."""
    row = registry.find("transform", component.type)
    transform_class = resolve(row.path)
    keywords = dict(component.kwargs)
    try:
        if not registry.is_foreign(str(row.path)):
            for name in _ENUMERATIONS.keys() & keywords.keys():
                keywords[name] = _ENUMERATIONS[name](keywords[name])
        return transform_class(**keywords)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"transforms: {row.name} cannot be built with {dict(component.kwargs)}: {error}") from error


def is_random(transform: object) -> bool:
    """Return whether a transform may give different results for the same image."""
    return type(transform) not in _DETERMINISTIC


def batched(transform: Any) -> BatchTransform | None:
    """Return the form of `transform` for batches; None if there is no equivalent one."""
    kind = type(transform)
    if kind is tv.ToTensor:
        return lambda images, draws, stream: images.to(torch.get_default_dtype()).div(255)
    if not isinstance(getattr(transform, "fill", 0), int | float):
        return None  # torchvision fills a tensor with one number only
    if kind is tv.Normalize:
        return lambda images, draws, stream: _normalize(images, transform)
    if kind in (tv.Pad, tv.CenterCrop):
        # Equal bit for bit on tensors and on images, with any leading axes.
        return lambda images, draws, stream: transform(images)
    if kind is tv.RandomCrop and not transform.pad_if_needed:
        return lambda images, draws, stream: _random_crop(images, draws, stream, transform)
    if kind is RandomNoise:
        return lambda images, draws, stream: transform.of_batch(images, draws.uniform(2 * stream))
    if kind is tv.RandomHorizontalFlip:
        return lambda images, draws, stream: _random_flip(images, draws, stream, transform.p, axis=3)
    if kind is tv.RandomVerticalFlip:
        return lambda images, draws, stream: _random_flip(images, draws, stream, transform.p, axis=2)
    return None


def _normalize(images: Tensor, transform: tv.Normalize) -> Tensor:
    """Return the images normalised; on a device without the synchronisations of torchvision's checks."""
    if images.device.type == "cpu":
        normalized: Tensor = transform(images)
        return normalized
    mean, std = (
        torch.tensor(values, dtype=images.dtype).view(-1, 1, 1).to(images.device, non_blocking=True)
        for values in (transform.mean, transform.std)
    )
    return images.sub(mean).div_(std)


def _random_crop(images: Tensor, draws: Draws, stream: int, transform: Any) -> Tensor:
    """Return every image cropped to `transform.size` at a random position of its own."""
    if transform.padding is not None:
        images = tv.functional.pad(images, transform.padding, transform.fill, transform.padding_mode)
    height, width = transform.size
    samples, _, full_height, full_width = images.shape
    if height > full_height or width > full_width:
        raise ValueError(f"the crop, {height}x{width}, is larger than the image, {full_height}x{full_width}")
    tops = (draws.uniform(2 * stream) * (full_height - height + 1)).astype(np.int64)
    lefts = (draws.uniform(2 * stream + 1) * (full_width - width + 1)).astype(np.int64)
    rows = torch.from_numpy(tops[:, None] + np.arange(height)).to(images.device, non_blocking=True)
    columns = torch.from_numpy(lefts[:, None] + np.arange(width)).to(images.device, non_blocking=True)
    numbers = torch.arange(samples, device=images.device)
    # The channel axis stays outside the three index arrays, so it comes out last.
    crops = images.permute(0, 2, 3, 1)[numbers[:, None, None], rows[:, :, None], columns[:, None, :]]
    return crops.permute(0, 3, 1, 2).contiguous()


def _random_flip(images: Tensor, draws: Draws, stream: int, probability: float, axis: int) -> Tensor:
    """Return the images, each flipped along `axis` with the given probability."""
    flipped = torch.from_numpy(draws.uniform(2 * stream) < probability).to(images.device, non_blocking=True)
    return torch.where(flipped[:, None, None, None], images.flip(axis), images)


def transformed(transforms: Sequence[Any], source: Source, index: int, seed: int, epoch: int) -> Inputs:
    """Return the input of one sample after all transforms, seeded by (seed, epoch, index); of pairs (input, target).

    Images are PIL images for the first transform; other inputs become tensors before it, all of a sample at once.
    Reseeds torch's and Python's global generators, which the caller restores.
    """
    image_seed = derive_seed(seed, "sample", epoch, index)
    torch.default_generator.manual_seed(image_seed)
    random.seed(image_seed)
    result: Any = source[index]
    if source.kind != "pairs":
        result = result[0]
    if source.kind == "tensors":
        result = map_leaves(lambda part: torch.tensor(part), result)
    elif isinstance(result, np.ndarray):
        result = Image.fromarray(result)
    for transform in transforms:
        result = transform(result)
    if not all(isinstance(value, Tensor) for _, value in leaves(result)):
        needed = "SegToTensor" if source.kind == "pairs" else "ToTensor"
        raise ConfigError(f"transforms: the last one returns an image, not a tensor; add {needed} to transformsFinal")
    return map_leaves(lambda value: value.as_subclass(Tensor), result)


def check_kind(transforms: Sequence[Any], kind: str) -> None:
    """Raise ConfigError for a transform of images with masks and other samples, or the other way round."""
    for transform in transforms:
        name, pairs = type(transform).__name__, isinstance(transform, PairTransform)
        if pairs and kind != "pairs":
            raise ConfigError(f"transforms: {name} is for images with masks, which this data set does not have")
        if kind == "pairs" and not pairs and type(transform).__module__.startswith("torchvision.transforms"):
            raise ConfigError(f"transforms: {name} would change images and not their masks; choose one of Seg...")
