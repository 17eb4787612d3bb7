"""MNIST, Fashion-MNIST, CIFAR10 and CIFAR100, downloaded and read by torchvision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torchvision.datasets

from luigi_prune.compute.data.data_files import DataFiles, data_root
from luigi_prune.compute.data.data_sources import RawData
from luigi_prune.errors import ConfigError, first_line


def read_vision(name: str, split: str, training_data: str, local_data: str) -> RawData:
    """Return the "train" or "test" images of data set `name`, uint8: (samples, 28, 28), for CIFAR (samples, 32, 32, 3).

    CIFAR100's targets are its 100 fine labels. Raises ConfigError naming the folder if files are missing or damaged.
    """
    dataset_class: Any = getattr(torchvision.datasets, name)
    files = files_of(dataset_class)
    root = data_root(files, training_data, local_data)
    try:
        stored = dataset_class(root, train=split == "train", download=False)
    except (RuntimeError, ValueError, OSError, AssertionError) as error:
        raise ConfigError(
            f"directories: the files of {files.name} in {root} are damaged ({first_line(error)})"
            f"; remove {root / files.folder} and run again"
        ) from error
    return RawData(np.asarray(stored.data), np.asarray(stored.targets, dtype=np.int64))


def files_of(dataset_class: Any) -> DataFiles:
    """Return the files that a class of torchvision reads, their archives, and the function that fetches them."""
    if issubclass(dataset_class, torchvision.datasets.MNIST):
        archives = [Path(dataset_class.__name__, "raw", archive) for archive, _ in dataset_class.resources]
        needed = [archive.with_suffix("") for archive in archives]
        folder = Path(dataset_class.__name__)
    else:
        archives = [Path(dataset_class.filename)]
        folder = Path(dataset_class.base_folder)
        names = [name for name, _ in (*dataset_class.train_list, *dataset_class.test_list)]
        needed = [folder / name for name in (*names, dataset_class.meta["filename"])]
    return DataFiles(
        name=dataset_class.__name__,
        folder=folder,
        needed=tuple(needed),
        archives=tuple(archives),
        fetch=lambda root: dataset_class(root, download=True),
    )
