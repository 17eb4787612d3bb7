"""MNIST, Fashion-MNIST, CIFAR10 and CIFAR100, read by torchvision from the files that it downloads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torchvision.datasets

from luigi_prune.compute.data.data_files import DataFiles, data_root
from luigi_prune.compute.data.samples import RawData
from luigi_prune.errors import ConfigError


def load(name: str, split: str, training_data: str, local_data: str) -> RawData:
    """Return the "train" or "test" images of data set `name`, uint8: (samples, 28, 28), for CIFAR (samples, 32, 32, 3).

    CIFAR100's targets are its 100 fine labels. Raises ConfigError naming the folder where files are missing or damaged.
    """
    kind: Any = getattr(torchvision.datasets, name)
    files = files_of(kind)
    root = data_root(files, training_data, local_data)
    try:
        stored = kind(root, train=split == "train", download=False)
    except (RuntimeError, ValueError, OSError, AssertionError) as error:
        raise ConfigError(
            f"directories: the files of {files.name} in {root} are damaged ({str(error).splitlines()[0]})"
            f"; remove {root / files.folder} and run again"
        ) from error
    return RawData(np.asarray(stored.data), np.asarray(stored.targets, dtype=np.int64))


def files_of(kind: Any) -> DataFiles:
    """Return which files torchvision's class `kind` reads, which archives they come in, and how to unpack or
    download them.
    """
    if issubclass(kind, torchvision.datasets.MNIST):
        archives = [Path(kind.__name__, "raw", archive) for archive, _ in kind.resources]
        needed = [archive.with_suffix("") for archive in archives]
        folder = Path(kind.__name__)
    else:
        archives = [Path(kind.filename)]
        names = [name for name, _ in (*kind.train_list, *kind.test_list)] + [kind.meta["filename"]]
        needed = [Path(kind.base_folder, name) for name in names]
        folder = Path(kind.base_folder)
    return DataFiles(
        name=kind.__name__,
        folder=folder,
        needed=tuple(needed),
        archives=tuple(archives),
        fetch=lambda root: kind(root, download=True),
    )
