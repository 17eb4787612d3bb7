"""Corruptions of images that need no files, at the severities 1 to 5 of ImageNet-C and CIFAR-10-C (arXiv 1903.12261).

Images up to `SMALL` pixels have the constants of CIFAR-10-C, whose corruptions are milder; larger ones those of
ImageNet-C. Random ones are seeded by corruption, severity and image, so that a corrupted set is always the same.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from luigi_prune.registry.dataset_families import CORRUPTIONS
from luigi_prune.seeds import derive_seed

SMALL = 64  # pixels of the longer edge

Floats = NDArray[np.float64]  # (height, width, channels) in [0, 1]

# By name: the constants of severities 1 to 5, for small and for large images.
_CONSTANTS: dict[str, tuple[tuple[Any, ...], tuple[Any, ...]]] = {
    "Gauss": ((0.04, 0.06, 0.08, 0.09, 0.10), (0.08, 0.12, 0.18, 0.26, 0.38)),  # standard deviation
    "Shot": ((500, 250, 100, 75, 50), (60, 25, 12, 5, 3)),  # photons of a white pixel
    "Impulse": ((0.01, 0.02, 0.03, 0.05, 0.07), (0.03, 0.06, 0.09, 0.17, 0.27)),  # share of the values replaced
    "Speckle": ((0.06, 0.1, 0.12, 0.16, 0.2), (0.15, 0.2, 0.35, 0.45, 0.6)),  # standard deviation of the factor
    "Blur": ((0.4, 0.6, 0.7, 0.8, 1), (1, 2, 3, 4, 6)),  # standard deviation in pixels
    "Defocus": (  # radius of the disk, standard deviation that smooths its edge
        ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    ),
    "Zoom": (  # largest magnification, step
        ((1.05, 0.01), (1.10, 0.01), (1.15, 0.01), (1.20, 0.01), (1.25, 0.01)),
        ((1.10, 0.01), (1.15, 0.01), (1.20, 0.02), (1.24, 0.02), (1.30, 0.03)),
    ),
    "Brightness": ((0.05, 0.1, 0.15, 0.2, 0.3), (0.1, 0.2, 0.3, 0.4, 0.5)),  # added
    "Contrast": ((0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05)),  # factor
    "Sat": (  # factor, and what is added
        ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
        ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
    ),
    "Jpeg": ((80, 65, 58, 50, 40), (25, 18, 15, 10, 7)),  # quality
    "Pixel": ((0.95, 0.9, 0.85, 0.75, 0.65), (0.6, 0.5, 0.4, 0.3, 0.25)),  # share of the edge's pixels
}


def corrupt(image: NDArray[np.uint8], name: str, severity: int, index: int) -> NDArray[np.uint8]:
    """Return the image (height, width[, 3]) corrupted; `index`: its number in the data set, which seeds the draws."""
    constant = _CONSTANTS[name][max(image.shape[:2]) > SMALL][severity - 1]
    function = _ON_PIXELS.get(name)
    if function is not None:
        picture = function(Image.fromarray(image), constant)
        return np.asarray(picture)
    rng = np.random.default_rng(derive_seed("corruption", CORRUPTIONS[name], severity, index))
    floats = np.atleast_3d(image) / 255.0
    changed = np.rint(np.clip(_ON_FLOATS[name](floats, constant, rng), 0, 1) * 255).astype(np.uint8)
    return changed.reshape(image.shape)


def _gauss(image: Floats, deviation: float, rng: np.random.Generator) -> Floats:
    return image + rng.normal(0, deviation, image.shape)


def _shot(image: Floats, photons: float, rng: np.random.Generator) -> Floats:
    return rng.poisson(image * photons) / photons


def _speckle(image: Floats, deviation: float, rng: np.random.Generator) -> Floats:
    return image * (1 + rng.normal(0, deviation, image.shape))


def _impulse(image: Floats, share: float, rng: np.random.Generator) -> Floats:
    """Return the image with a share of its values replaced by 0 or 1, with equal probability."""
    drawn = rng.random(image.shape)
    return np.where(drawn < share, drawn < share / 2, image)


def _blur(image: Floats, deviation: float, rng: np.random.Generator) -> Floats:
    from scipy.ndimage import gaussian_filter  # slow to import, used by corrupted sets only

    return np.asarray(gaussian_filter(image, (deviation, deviation, 0), mode="nearest", truncate=4))


def _defocus(image: Floats, constant: tuple[float, float], rng: np.random.Generator) -> Floats:
    """Return the image convolved with a disk whose edge is smoothed."""
    from scipy.ndimage import convolve, gaussian_filter

    radius, deviation = constant
    half = int(np.ceil(radius + 4 * deviation))  # where the smoothed disk has faded out
    offsets = np.arange(-half, half + 1)
    disk = (offsets[:, None] ** 2 + offsets**2 <= radius**2).astype(np.float64)
    disk = gaussian_filter(disk, deviation)
    return np.asarray(convolve(image, (disk / disk.sum())[:, :, None], mode="mirror"))


def _zoom(image: Floats, constant: tuple[float, float], rng: np.random.Generator) -> Floats:
    """Return the mean of the image and its magnifications about the middle."""
    from scipy.ndimage import affine_transform

    largest, step = constant
    factors = np.arange(1, largest + step / 2, step)
    middle = (np.array(image.shape[:2]) - 1) / 2
    total = image.copy()
    for factor in factors:
        scale = np.array([1 / factor, 1 / factor, 1])
        offset = np.array([*(middle - middle / factor), 0])
        total += affine_transform(image, scale, offset, order=1, mode="nearest")
    return total / (len(factors) + 1)


def _brightness(image: Floats, added: float, rng: np.random.Generator) -> Floats:
    """Return the image with `added` to the value of hue, saturation and value."""
    value = image.max(axis=2, keepdims=True)
    brighter = np.minimum(value + added, 1)
    factor = np.divide(brighter, value, out=np.ones_like(value), where=value > 0)
    return np.where(value > 0, image * factor, brighter)


def _contrast(image: Floats, factor: float, rng: np.random.Generator) -> Floats:
    mean = image.mean(axis=(0, 1), keepdims=True)
    return (image - mean) * factor + mean


def _saturate(image: Floats, constant: tuple[float, float], rng: np.random.Generator) -> Floats:
    """Return the image with another saturation of hue, saturation and value; grey pixels stay grey."""
    factor, added = constant
    value, least = (function(image, axis=2, keepdims=True) for function in (np.max, np.min))
    saturation = np.divide(value - least, value, out=np.zeros_like(value), where=value > 0)
    wanted = np.clip(saturation * factor + added, 0, 1)
    ratio = np.divide(wanted, saturation, out=np.ones_like(value), where=saturation > 0)
    return np.asarray(value - (value - image) * ratio)


def _jpeg(picture: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(file)


def _pixelate(picture: Image.Image, share: float) -> Image.Image:
    width, height = picture.size
    small = picture.resize((max(int(width * share), 1), max(int(height * share), 1)), Image.Resampling.BOX)
    return small.resize((width, height), Image.Resampling.NEAREST)


_ON_FLOATS: dict[str, Callable[[Floats, Any, np.random.Generator], Floats]] = {
    "Gauss": _gauss,
    "Shot": _shot,
    "Impulse": _impulse,
    "Speckle": _speckle,
    "Blur": _blur,
    "Defocus": _defocus,
    "Zoom": _zoom,
    "Brightness": _brightness,
    "Contrast": _contrast,
    "Sat": _saturate,
}
_ON_PIXELS: dict[str, Callable[[Image.Image, Any], Image.Image]] = {"Jpeg": _jpeg, "Pixel": _pixelate}
