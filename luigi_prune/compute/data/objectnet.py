"""ObjectNet: photographs of 313 kinds of objects, of which 113 are classes of ImageNet (objectnet.dev)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from luigi_prune.compute.data.data_files import DataFolder, folder_root
from luigi_prune.compute.data.data_sources import ImageFiles, damaged
from luigi_prune.compute.data.imagenet import image_files
from luigi_prune.errors import ConfigError

_ROOT = Path("objectnet-1.0")
_SOURCE = "https://objectnet.dev (objectnet-1.0.zip; unpack it with the password given there)"
_BORDER = 3  # red pixels on every side


def read_objectnet(name: str, split: str, training_data: str, local_data: str) -> ImageFiles:
    """Return the images of the classes that ImageNet has, too, without their border; for "train" raises ConfigError.

    A kind of object with several classes of ImageNet gets the first one.
    """
    if split == "train":
        raise ConfigError("network.dataset: ObjectNet is a test set; train on ImageNet and name it in datasetTest")
    root = folder_root(DataFolder(name, _ROOT / "images", (), _SOURCE), training_data, local_data) / _ROOT
    classes = objectnet_classes(root / "mappings")
    paths: list[str] = []
    targets: list[int] = []
    for entry in sorted(os.scandir(root / "images"), key=lambda entry: entry.name):
        if entry.is_dir() and entry.name in classes:
            found = list(image_files(entry.path))
            paths += found
            targets += [classes[entry.name]] * len(found)
    if not paths:
        raise ConfigError(f"{root / 'images'}: found no folder with images whose name is in {root / 'mappings'}")
    return ImageFiles(paths, targets, _BORDER)


def objectnet_classes(folder: Path) -> dict[str, int]:
    """Return ImageNet's class number of each folder of images that has one, in the order of torchvision's networks."""
    kinds = _read(folder / "folder_to_objectnet_label.json")  # folder -> kind of object
    labels = _read(folder / "objectnet_to_imagenet_1k.json")  # kind -> ImageNet's labels, "analog clock; digital clock"
    ids = _read(folder / "pytorch_to_imagenet_2012_id.json")  # class number -> line of the list of labels
    path = folder / "imagenet_to_label_2012_v2"
    try:
        lines = {line.strip(): number for number, line in enumerate(path.read_text().splitlines())}
        number_of = {int(line): int(number) for number, line in ids.items()}
        return {name: number_of[lines[labels[kind].split("; ")[0]]] for name, kind in kinds.items() if kind in labels}
    except (OSError, KeyError, ValueError, AttributeError, TypeError) as error:
        raise damaged(path, error) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise damaged(path, error) from error
    if not isinstance(content, dict):
        raise damaged(path, f"expected a dictionary, got a {type(content).__name__}")
    return content
