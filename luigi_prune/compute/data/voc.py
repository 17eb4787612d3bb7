"""Segmentation data sets of PASCAL VOC, and corrupted variants: photographs with a class per pixel, 255 = ignored."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from luigi_prune.compute.data.corrupted_images import corrupted
from luigi_prune.compute.data.data_files import DataFolder, folder_root
from luigi_prune.compute.data.data_sources import MaskedImages, Source
from luigi_prune.errors import ConfigError
from luigi_prune.registry.dataset_families import COMPUTED, CORRUPTIONS

log = logging.getLogger(__name__)

_DEVKIT = Path("VOCdevkit/VOC2012")
_AUGMENTED = Path("SegmentationClassAug")
_SBD = Path("benchmark_RELEASE/dataset")
_VOC_SOURCE = "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar"
_AUGMENTED_SOURCE = "the authors of DeepLab (SegmentationClassAug.zip, 12,031 masks)"
_SBD_SOURCE = "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz"


def read_voc(name: str, split: str, training_data: str, local_data: str) -> MaskedImages:
    """Return the training images or, for "test", the validation images, with their masks."""
    images, masks = _files(name, split, training_data, local_data)
    return MaskedImages(_existing(images), _existing(masks))


def read_corrupted_voc(name: str, split: str, training_data: str, local_data: str) -> Source:
    """Return the images of the folder `VOC<year>_<corruption>_<severity>`, or corrupted here, with the clean masks."""
    base, _, corruption = name.partition("_C_")
    kind, _, severity = corruption.partition("_")
    images, masks = _files(base, split, training_data, local_data)
    folder = f"VOC{base[-4:]}_{CORRUPTIONS[kind]}_{severity}"
    roots = [Path(root).expanduser() / folder for root in (local_data, training_data) if root]
    found = next((root for root in roots if root.is_dir()), None)
    if found is not None:
        return MaskedImages(_existing([found / f"{image.stem}.jpg" for image in images]), _existing(masks))
    if kind not in COMPUTED:
        raise ConfigError(
            f"directories.training_data: {name} is not in {training_data} and {CORRUPTIONS[kind]} cannot be computed; "
            f"put the folder {folder}, with a corrupted <id>.jpg of every image, there"
        )
    log.warning("%s: no folder %s in %s, so the images are corrupted here", name, folder, training_data)
    return corrupted(MaskedImages(_existing(images), _existing(masks)), kind, int(severity))


def _files(name: str, split: str, training_data: str, local_data: str) -> tuple[list[Path], list[Path]]:
    """Return the paths of images and masks, of a data set and split."""
    if name == "VOCSegmentation2011":
        return _boundaries(split, training_data, local_data)
    root = folder_root(
        DataFolder(name, _DEVKIT, (Path("VOCtrainval_11-May-2012.tar"),), _VOC_SOURCE), training_data, local_data
    )
    devkit = root / _DEVKIT
    ids = _ids(devkit / "ImageSets" / "Segmentation" / "val.txt")
    masks = devkit / "SegmentationClass"
    if split == "train":
        source = DataFolder("the augmented VOC 2012", _AUGMENTED, (Path(f"{_AUGMENTED}.zip"),), _AUGMENTED_SOURCE)
        masks = folder_root(source, training_data, local_data) / _AUGMENTED
        ids = _augmented_ids(devkit, masks, ids)
    return [devkit / "JPEGImages" / f"{each}.jpg" for each in ids], [masks / f"{each}.png" for each in ids]


def _augmented_ids(devkit: Path, masks: Path, validation: Sequence[str]) -> list[str]:
    """Return the augmented training list: that of a file if there is one, else all masks but those of validation."""
    for name in ("trainaug.txt", "train_aug.txt"):
        if (devkit / "ImageSets" / "Segmentation" / name).is_file():
            return _ids(devkit / "ImageSets" / "Segmentation" / name)
    return sorted({path.stem for path in masks.glob("*.png")} - set(validation))


def _boundaries(split: str, training_data: str, local_data: str) -> tuple[list[Path], list[Path]]:
    """Return the files of the Semantic Boundaries Dataset, in its own folder or where torchvision moves it."""
    candidates = [Path(root).expanduser() / each for root in (local_data, training_data) if root for each in (_SBD, "")]
    root = next((each for each in candidates if (each / "cls").is_dir() and (each / "img").is_dir()), None)
    if root is None:
        folder = DataFolder("VOCSegmentation2011", _SBD, (Path("benchmark.tgz"),), _SBD_SOURCE)
        root = folder_root(folder, training_data, local_data) / _SBD
    ids = _ids(root / ("train.txt" if split == "train" else "val.txt"))
    return [root / "img" / f"{each}.jpg" for each in ids], [root / "cls" / f"{each}.mat" for each in ids]


def _ids(path: Path) -> list[str]:
    """Return the names of a list, one per line."""
    try:
        names = path.read_text().split()
    except (OSError, UnicodeDecodeError) as error:
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else str(error)
        raise ConfigError(f"{path}: {reason}; expected a list of images, one per line") from error
    if not names:
        raise ConfigError(f"{path}: is empty; expected a list of images, one per line")
    return names


def _existing(paths: list[Path]) -> list[Path]:
    """Return the paths; raises ConfigError for the first without a file, before hours of training."""
    present = {folder: {each.name for each in folder.iterdir()} if folder.is_dir() else set()
               for folder in {path.parent for path in paths}}  # fmt: skip
    missing = [path for path in paths if path.name not in present[path.parent]]
    if missing:
        raise ConfigError(f"{missing[0]}: there is no such file ({len(missing)} of {len(paths)} are missing)")
    return paths
