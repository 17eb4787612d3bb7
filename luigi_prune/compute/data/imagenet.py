"""ImageNet, ImageNet-C and any folder of images with a folder per class."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from luigi_prune.compute.data.data_files import DataFolder, folder_root
from luigi_prune.compute.data.data_sources import ImageFiles, Source, damaged
from luigi_prune.errors import ConfigError
from luigi_prune.registry.dataset_families import CORRUPTIONS

CLASSES = 1000
_IMAGES = Path("ILSVRC/Data/CLS-LOC")
_SYNSETS, _SOLUTION = Path("LOC_synset_mapping.txt"), Path("LOC_val_solution.csv")
_KAGGLE = "https://www.kaggle.com/c/imagenet-object-localization-challenge"
_IMAGENET_C = "https://zenodo.org/records/2235448"
_SUFFIXES = (".jpeg", ".jpg", ".png", ".bmp", ".webp")
_TYPES = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("brightness", "fog", "frost", "snow"),
    "digital": ("contrast", "elastic_transform", "jpeg_compression", "pixelate"),
    "extra": ("gaussian_blur", "saturate", "spatter", "speckle_noise"),
}


def read_imagenet(name: str, split: str, training_data: str, local_data: str) -> Source:
    """Return the images of ILSVRC 2012 in Kaggle's folders; test are its validation images, flat or in folders."""
    root = folder_root(_imagenet(), training_data, local_data)
    folder = root / _IMAGES / ("train" if split == "train" else "val")
    if not folder.is_dir():
        raise ConfigError(f"{folder}: there is no such folder, with the {split} images of ImageNet from {_KAGGLE}")
    number = imagenet_classes(training_data, local_data)
    if split == "test" and not any(entry.is_dir() for entry in os.scandir(folder)):
        return _flat(folder, _solution(root / _SOLUTION, number))
    return class_folders(folder, number)


def read_imagenet_c(name: str, split: str, training_data: str, local_data: str) -> Source:
    """Return the corrupted validation images; for "train" raises ConfigError."""
    if split == "train":
        raise ConfigError(f"network.dataset: {name} is a test set; train on ImageNet and name it in datasetTest")
    kind, _, severity = name.removeprefix("ImageNet_C_").partition("_")
    corruption = CORRUPTIONS[kind]
    archive = next(each for each, members in _TYPES.items() if corruption in members)
    folder = DataFolder(name, Path(corruption, severity), (Path(f"{archive}.tar"),), _IMAGENET_C)
    root = folder_root(folder, training_data, local_data)
    path = root / folder.path
    return class_folders(path, imagenet_classes(training_data, local_data, path))


def read_image_folder(name: str, split: str, training_data: str, local_data: str) -> Source:
    """Return the images of `<folder>/train`, or of `<folder>/test` or `val`; classes are the folders of "train"."""
    base = Path(name.partition(":")[2])
    folder = DataFolder(name, base / "train", tuple(Path(f"{base}{end}") for end in (".tar", ".tar.gz", ".zip")),
                        "where you keep it", (base / "test", base / "val"))  # fmt: skip
    root = folder_root(folder, training_data, local_data) / base
    number = numbered(entry.name for entry in os.scandir(root / "train") if entry.is_dir())
    if split == "train":
        return class_folders(root / "train", number)
    for test in ("test", "val"):
        if (root / test).is_dir():
            return class_folders(root / test, number)
    raise ConfigError(f"{root}: expected a folder test or val beside train, with the test images by class")


def imagenet_classes(training_data: str, local_data: str, sorted_folders: Path | None = None) -> dict[str, int]:
    """Return the number of each class by its WordNet id: its rank among all 1000.

    From the training images, Kaggle's list of synsets, or `sorted_folders` if these are all 1000; raises ConfigError if
    there is none of them.
    """
    roots = [Path(folder).expanduser() for folder in (local_data, training_data) if folder]
    for root in roots:
        if (root / _IMAGES / "train").is_dir():
            return numbered(entry.name for entry in os.scandir(root / _IMAGES / "train") if entry.is_dir())
        if (root / _SYNSETS).is_file():
            lines = (root / _SYNSETS).read_text(errors="replace").splitlines()
            return numbered(line.split()[0] for line in lines if line.strip())
    folders = [entry.name for entry in os.scandir(sorted_folders) if entry.is_dir()] if sorted_folders else []
    for root in roots:
        val = root / _IMAGES / "val"
        if len(folders) != CLASSES and val.is_dir():
            folders = [entry.name for entry in os.scandir(val) if entry.is_dir()]
    if len(folders) == CLASSES:
        return numbered(folders)
    raise ConfigError(
        f"directories.training_data: the numbers of ImageNet's classes are unknown; put {_SYNSETS}, from {_KAGGLE}, "
        f"into {roots[-1]}"
    )


def numbered(names: Iterable[str]) -> dict[str, int]:
    """Return the rank of each name in alphabetical order."""
    return {name: rank for rank, name in enumerate(sorted(names))}


def class_folders(folder: Path, number: Mapping[str, int], border: int = 0) -> ImageFiles:
    """Return the images in the folders of the classes; raises ConfigError for a folder that is no class."""
    paths: list[str] = []
    targets: list[int] = []
    for entry in sorted((entry for entry in os.scandir(folder) if entry.is_dir()), key=lambda entry: entry.name):
        if entry.name not in number:
            known = f"there are {len(number)}, such as {min(number, default='none')}"
            raise ConfigError(f"{entry.path}: is the folder of no class; {known}")
        found = list(image_files(entry.path))
        paths += found
        targets += [number[entry.name]] * len(found)
    return _files(folder, paths, targets, border)


def image_files(folder: Path | str) -> Iterator[str]:
    """Yield the paths of the images in a folder, sorted."""
    with os.scandir(folder) as entries:
        yield from sorted(entry.path for entry in entries if entry.name.lower().endswith(_SUFFIXES))


def _flat(folder: Path, classes: Mapping[str, int]) -> ImageFiles:
    """Return the images of one folder with classes by file name without suffix."""
    paths = list(image_files(folder))
    missing = next((path for path in paths if Path(path).stem not in classes), None)
    if missing is not None:
        raise ConfigError(f"{missing}: its class is not in {_SOLUTION}")
    return _files(folder, paths, [classes[Path(path).stem] for path in paths], 0)


def _files(folder: Path, paths: Sequence[str], targets: Sequence[int], border: int) -> ImageFiles:
    if not paths:
        raise ConfigError(f"{folder}: expected images ({', '.join(_SUFFIXES)}), found none")
    return ImageFiles(paths, targets, border)


def _solution(path: Path, number: Mapping[str, int]) -> dict[str, int]:
    """Return the class of each validation image, from Kaggle's list."""
    if not path.is_file():
        raise ConfigError(
            f"{path}: there is no such file, which gives the classes of validation images that are not in folders by "
            f"class; get it from {_KAGGLE}"
        )
    try:
        with open(path, newline="") as file:
            return {row["ImageId"]: number[row["PredictionString"].split()[0]] for row in csv.DictReader(file)}
    except (KeyError, IndexError, AttributeError, TypeError, csv.Error, UnicodeDecodeError) as error:
        raise damaged(path, f"expected columns ImageId and PredictionString with a class ({error})") from error


def _imagenet() -> DataFolder:
    archive = Path("imagenet_object_localization.tar.gz")
    return DataFolder("ImageNet", _IMAGES, (archive,), _KAGGLE, (_SYNSETS, _SOLUTION))
