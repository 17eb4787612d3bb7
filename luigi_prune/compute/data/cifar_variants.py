"""Variants of CIFAR10: CIFAR-10.1, CIFAR-10-C, mixtures of corruptions, random labels."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from luigi_prune.compute.data.archives import unpacked_from
from luigi_prune.compute.data.corrupted_images import corrupted_arrays
from luigi_prune.compute.data.corruptions import corrupt
from luigi_prune.compute.data.data_files import DataFiles, data_root, found_root
from luigi_prune.compute.data.data_sources import RawData, Source, damaged
from luigi_prune.compute.data.vision import read_vision
from luigi_prune.errors import ConfigError
from luigi_prune.registry.dataset_families import COMPUTED, CORRUPTIONS
from luigi_prune.seeds import derive_seed

log = logging.getLogger(__name__)

MIXTURES = {
    "1": ("Contrast", "Elastic", "Blur", "Impulse", "Motion", "Pixel", "Shot", "Snow", "Zoom"),
    "2": ("Brightness", "Defocus", "Fog", "Frost", "Gauss", "Glass", "Jpeg", "Sat", "Spatter", "Speckle"),
}
_SEVERITIES = (1, 2, 3, 4, 5)
_TRAIN = Path("CIFAR-10-C-train")
_CIFAR10_1 = "https://github.com/modestyachts/CIFAR-10.1/tree/master/datasets"
_CIFAR10_C = "https://zenodo.org/records/2535967"


def read_cifar10_1(name: str, split: str, training_data: str, local_data: str) -> RawData:
    """Return the 2,000 images of CIFAR-10.1 v6, for "train" those of CIFAR10."""
    if split == "train":
        return read_vision("CIFAR10", split, training_data, local_data)
    parts = tuple(Path(f"cifar10.1_v6_{part}.npy") for part in ("data", "labels"))
    files = DataFiles(name, Path(), parts, parts, unpacked_from(parts), _CIFAR10_1)
    root = data_root(files, training_data, local_data)
    images = read_images(root / parts[0])
    return RawData(np.array(images), read_labels(root / parts[1], len(images)))


def read_cifar10_c(name: str, split: str, training_data: str, local_data: str) -> Source:
    """Return the test images of CIFAR-10-C of one severity or of all five, one after another.

    For "train" those of the archive `CIFAR-10-C-train`, or CIFAR10's, corrupted here if it is not there.
    """
    kind, _, severity = name.removeprefix("CIFAR10_C_").partition("_")
    severities = (int(severity),) if severity else _SEVERITIES
    if split == "test":
        return _published(name, CORRUPTIONS[kind], severities, training_data, local_data)
    clean = read_vision("CIFAR10", "train", training_data, local_data)
    stored = _stored(kind, severities, len(clean), training_data, local_data)
    parts = [stored[each] if each in stored else corrupted_arrays(clean.images, kind, each) for each in severities]
    return RawData(np.concatenate(parts), np.tile(clean.targets, len(parts)))


def read_mix(name: str, split: str, training_data: str, local_data: str) -> Source:
    """Return CIFAR10's test images, for "train" those that are corrupted anew at every access."""
    clean = read_vision("CIFAR10", split, training_data, local_data)
    if split == "test":
        return clean
    files = {
        (kind, severity): images
        for kind in MIXTURES[name[-1]]
        for severity, images in _stored(kind, _SEVERITIES, len(clean), training_data, local_data).items()
    }
    return _Mixture(clean, MIXTURES[name[-1]], files)


def read_random_labels(name: str, split: str, training_data: str, local_data: str) -> RawData:
    """Return CIFAR10 with a percentage of the training labels replaced: as in the reference's file, or drawn here."""
    clean = read_vision("CIFAR10", split, training_data, local_data)
    percent = int(name.removeprefix("CIFAR10Rand"))
    if split == "test":
        return clean
    folder = f"CIFAR10_Rand_{percent}"
    path = Path(folder, f"{folder}_labels.npy")
    root = found_root([path], training_data, local_data)
    if root is not None:
        return RawData(clean.images, read_labels(root / path, len(clean)))
    return RawData(clean.images, random_labels(clean.targets, percent))


def random_labels(targets: NDArray[np.int64], percent: int) -> NDArray[np.int64]:
    """Return the labels with `percent` % of them replaced by (label + u) mod 10, u from 1 to 8; always the same.

    The reference meant u from 1 to 9, so that every other class may follow; its draw never returns the last number.
    """
    rng = np.random.default_rng(derive_seed("random labels", percent))
    replaced = rng.permutation(len(targets))[: len(targets) * percent // 100]
    labels = targets.copy()
    labels[replaced] = (labels[replaced] + rng.integers(1, 9, len(replaced))) % 10
    return labels


class _Mixture(Source):
    """Images corrupted at every access: by one of `kinds`, at a severity from 0 (clean) to 5, both drawn uniformly.

    Of `files`, where they have this corruption and severity, otherwise computed.
    """

    random = True

    def __init__(self, clean: RawData, kinds: tuple[str, ...], files: Mapping[tuple[str, int], NDArray[np.uint8]]):
        self._clean, self._kinds, self._files = clean, kinds, files
        self.targets = clean.targets

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        kind, severity = self._kinds[int(torch.randint(len(self._kinds), ()))], int(torch.randint(6, ()))
        image, target = self._clean[index]
        if severity and (kind, severity) in self._files:
            return np.array(self._files[kind, severity][index]), target
        return (corrupt(image, kind, severity, index) if severity else image), target


def _published(name: str, file: str, severities: tuple[int, ...], training_data: str, local_data: str) -> RawData:
    """Return images of a file of CIFAR-10-C, which has five blocks, one per severity."""
    folder = Path("CIFAR-10-C")
    needed = (folder / f"{file}.npy", folder / "labels.npy")
    archives = (Path("CIFAR-10-C.tar"),)
    root = data_root(
        DataFiles(name, folder, needed, archives, unpacked_from(needed), _CIFAR10_C), training_data, local_data
    )
    images = read_images(root / needed[0])
    labels = read_labels(root / needed[1], len(images))
    size, rest = divmod(len(images), len(_SEVERITIES))
    if rest:
        raise damaged(root / needed[0], f"expected five severities of one length, got {len(images)} images")
    rows = np.concatenate([np.arange((severity - 1) * size, severity * size) for severity in severities])
    return RawData(images[rows], labels[rows])


def _stored(
    kind: str, severities: tuple[int, ...], samples: int, training_data: str, local_data: str
) -> dict[int, NDArray[np.uint8]]:
    """Return the training images of one corruption by severity, mapped into memory; {} if they can be computed instead.

    Raises ConfigError if there is no file and the corruption cannot be computed.
    """
    needed = tuple(_TRAIN / f"{CORRUPTIONS[kind]}_{severity}.npy" for severity in severities)
    archive = Path(f"{_TRAIN}.tar.gz")
    if found_root(needed, training_data, local_data) is None and found_root([archive], training_data) is None:
        if kind in COMPUTED:
            log.warning("CIFAR10_C_%s: no %s in %s, so its training images are computed", kind, _TRAIN, training_data)
            return {}
        raise ConfigError(
            f"directories.training_data: training images of CIFAR10_C_{kind} cannot be computed; put {archive}, with "
            f"{needed[0]} and the others, into {training_data} (made by the package imagecorruptions from CIFAR10)"
        )
    files = DataFiles(f"CIFAR10_C_{kind}", _TRAIN, needed, (archive,), unpacked_from(needed), "torchprune")
    root = data_root(files, training_data, local_data)
    return {severity: read_images(root / path, samples) for severity, path in zip(severities, needed, strict=True)}


def read_images(path: Path, samples: int | None = None) -> NDArray[np.uint8]:
    """Return the images of a file, (samples, 32, 32, 3) of uint8, mapped into memory."""
    images = _array(path)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (32, 32, 3):
        raise damaged(path, f"expected images of 32x32x3 bytes, got {images.dtype} numbers of shape {images.shape}")
    if samples is not None and len(images) != samples:
        raise damaged(path, f"expected {samples} images, got {len(images)}")
    return images


def read_labels(path: Path, samples: int) -> NDArray[np.int64]:
    """Return the labels of a file, (samples,), from 0 to 9."""
    labels = _array(path)
    if labels.dtype.kind not in "iu" or labels.shape != (samples,):
        raise damaged(path, f"expected {samples} class numbers, got {labels.dtype} numbers of shape {labels.shape}")
    if labels.min() < 0 or labels.max() > 9:
        raise damaged(path, f"expected class numbers from 0 to 9, got {labels.min()} to {labels.max()}")
    return np.array(labels, dtype=np.int64)


def _array(path: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        return array
    except (OSError, ValueError, EOFError) as error:
        raise damaged(path, error) from error
