"""The families of data sets: corrupted images, random labels, folders of images."""

from __future__ import annotations

import dataclasses
import re

from luigi_prune.errors import ConfigError, nearest
from luigi_prune.registry.dataset_rows import DATASETS
from luigi_prune.registry.rows import DatasetRow, Family

_DATA = "luigi_prune.compute.data"

CORRUPTIONS = {
    "Brightness": "brightness",
    "Contrast": "contrast",
    "Defocus": "defocus_blur",
    "Elastic": "elastic_transform",
    "Fog": "fog",
    "Frost": "frost",
    "Blur": "gaussian_blur",
    "Gauss": "gaussian_noise",
    "Glass": "glass_blur",
    "Impulse": "impulse_noise",
    "Jpeg": "jpeg_compression",
    "Motion": "motion_blur",
    "Pixel": "pixelate",
    "Sat": "saturate",
    "Shot": "shot_noise",
    "Snow": "snow",
    "Spatter": "spatter",
    "Speckle": "speckle_noise",
    "Zoom": "zoom_blur",
}
"""Names in experiment files -> names of files and folders."""
COMPUTED = (
    "Brightness", "Contrast", "Defocus", "Blur", "Gauss", "Impulse", "Jpeg", "Pixel", "Sat", "Shot", "Speckle", "Zoom",
)  # fmt: skip
"""Those that need no files; the others draw textures, or move pixels by programs of their own."""

_IMAGE_FOLDER = r"ImageFolder:[A-Za-z0-9.][\w.-]*?"
_SEVERITY = "(?:_([1-5]))"


def _corruption(name: str, known: tuple[str, ...], reason: str = "is not a corruption") -> None:
    if name not in known:
        raise ConfigError(f"{name} {reason}{nearest(name, known)}")


def _cifar_c(match: re.Match[str]) -> DatasetRow:
    _corruption(match[1], tuple(CORRUPTIONS))
    return DatasetRow(
        match[0], f"{_DATA}.cifar_variants:read_cifar10_c", 10, (3, 32, 32), f"CIFAR10 after {CORRUPTIONS[match[1]]}"
    )


def _files(match: re.Match[str]) -> DatasetRow:
    """Return the row of a corrupted ImageNet or VOC, whose images are files."""
    base = DATASETS[match[1]]
    _corruption(match[2], tuple(CORRUPTIONS))
    loader = "imagenet:read_imagenet_c" if match[1] == "ImageNet" else "voc:read_corrupted_voc"
    what = f"{match[1]} after {CORRUPTIONS[match[2]]}"
    return dataclasses.replace(
        base, name=match[0], path=f"{_DATA}.{loader}", summary=what, test_only=match[1] == "ImageNet"
    )


def _computed(match: re.Match[str]) -> DatasetRow:
    """Return the row of any image set whose corruption is computed."""
    reason = "needs files that this data set does not have, or is not a corruption"
    _corruption(match[2], COMPUTED, reason)
    base = DATASETS.get(match[1])
    if match[2] == "Sat" and base is not None and base.input_shape[0] == 1:
        raise ConfigError(f"Sat changes colours, and the images of {match[1]} are grey; choose another corruption")
    return DatasetRow(
        match[0],
        f"{_DATA}.corrupted_images:read_corrupted",
        base.num_classes if base else None,
        base.input_shape if base else None,
        f"{match[1]} after {CORRUPTIONS[match[2]]}",
        test_only=base is not None and base.test_only,
    )


def _random_labels(match: re.Match[str]) -> DatasetRow:
    if int(match[1]) > 100:
        raise ConfigError("the number is a percentage, at most 100")
    summary = f"CIFAR10 with {match[1]} % of the training labels replaced; test: CIFAR10's"
    return DatasetRow(match[0], f"{_DATA}.cifar_variants:read_random_labels", 10, (3, 32, 32), summary)


def _image_folder(match: re.Match[str]) -> DatasetRow:
    summary = f"images in the folder {match[1]}, a folder per class"
    return DatasetRow(match[0], f"{_DATA}.imagenet:read_image_folder", None, None, summary)


def _members(base: str, severity: str = "_3") -> tuple[str, ...]:
    return tuple(f"{base}_C_{name}{severity}" for name in CORRUPTIONS)


DATASET_FAMILIES: tuple[Family[DatasetRow], ...] = (
    Family(
        "CIFAR10_C_<corruption>[_<1..5>]",
        rf"CIFAR10_C_(?!Mix[12]$)([A-Za-z]+){_SEVERITY}?",
        _cifar_c,
        "CIFAR-10-C; all five severities if none is given",
        (*_members("CIFAR10", ""), *_members("CIFAR10")),
    ),
    Family(
        "ImageNet_C_<corruption>_<1..5>, VOCSegmentation<2011|2012>_C_<corruption>_<1..5>",
        rf"(ImageNet|VOCSegmentation201[12])_C_([A-Za-z]+){_SEVERITY}",
        _files,
        "Corrupted images, with the classes of the clean ones",
        tuple(name for base in ("ImageNet", "VOCSegmentation2011", "VOCSegmentation2012") for name in _members(base)),
    ),
    Family(
        "<data set>_C_<corruption>_<1..5>",
        rf"(Digits|MNIST|FashionMNIST|CIFAR100|CIFAR10_1|ObjectNet|{_IMAGE_FOLDER})_C_([A-Za-z]+){_SEVERITY}",
        _computed,
        f"Images of another data set after a corruption that needs no files: {', '.join(COMPUTED)}",
        tuple(f"{base}_C_{name}_3" for base in ("Digits", "MNIST") for name in COMPUTED if name != "Sat"),
    ),
    Family(
        "CIFAR10Rand<percent>",
        r"CIFAR10Rand(\d{1,3})",
        _random_labels,
        "CIFAR10 with some random training labels",
        tuple(f"CIFAR10Rand{percent}" for percent in (0, 5, 10, 15, 20)),
    ),
    Family(
        "ImageFolder:<folder>",
        r"ImageFolder:([A-Za-z0-9.][\w.-]*)",
        _image_folder,
        "`<training data>/<folder>/train/<class>/*` and `.../test/<class>/*`, or `val`; give `network.outputSize`",
    ),
)
