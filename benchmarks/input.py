"""Samples per second of our input and of torchvision's, on one core, for images of CIFAR10's shape.

python benchmarks/input.py [--samples 20000] [--rounds 5]

Both pad, crop, mirror, convert and normalise the same random images in batches of 128. Torchvision: its CIFAR10 data
set, transforms of PIL images, and a DataLoader without worker processes. Ours: `Samples`, in memory, in the order of an
epoch. They run alternately; CPU times of the process are compared, so that other processes have little influence.
Prints samples per second of each (the median of the rounds) and their ratio.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import torchvision.datasets
import torchvision.transforms as tv
from torch.utils.data import DataLoader

from luigi_prune.compute.data import RawData, Samples
from luigi_prune.compute.data.loading import load_batches
from luigi_prune.compute.data.sample_order import epoch_order, global_batches
from luigi_prune.config.schema import Component

CPU = torch.device("cpu")
BATCH = 128
MEAN, STD = [0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]


def images_and_labels(samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Return random images of CIFAR10's shape and their labels."""
    drawn = np.random.default_rng(0)
    return drawn.integers(0, 256, (samples, 32, 32, 3), dtype=np.uint8), drawn.integers(0, 10, samples)


def ours(images: np.ndarray, labels: np.ndarray) -> Callable[[int], int]:
    """Return a function that reads an epoch and returns its samples."""
    transforms = [
        Component(type="RandomCrop", kwargs={"size": 32, "padding": 4}),
        Component(type="RandomHorizontalFlip"),
        Component(type="ToTensor"),
        Component(type="Normalize", kwargs={"mean": MEAN, "std": STD}),
    ]
    samples = Samples(RawData(images, labels), transforms)

    def read(epoch: int) -> int:
        batches = global_batches(epoch_order(len(samples), 0, epoch), BATCH)
        return sum(len(x) for x, _ in load_batches(samples, batches, epoch=epoch, seed=0, device=CPU))

    return read


def torchvisions(images: np.ndarray, labels: np.ndarray) -> Callable[[int], int]:
    """Return a function that reads an epoch and returns its samples."""
    transform = tv.Compose(
        [tv.RandomCrop(32, padding=4), tv.RandomHorizontalFlip(), tv.ToTensor(), tv.Normalize(MEAN, STD)]
    )
    stored = torchvision.datasets.CIFAR10.__new__(torchvision.datasets.CIFAR10)  # without files
    stored.data, stored.targets = images, labels.tolist()
    stored.transform, stored.target_transform = transform, None
    loader: DataLoader[tuple[torch.Tensor, torch.Tensor]] = DataLoader(stored, BATCH, shuffle=True)
    return lambda epoch: sum(len(x) for x, _ in loader)


def rates(readers: Sequence[Callable[[int], int]], rounds: int) -> list[float]:
    """Return the samples per second of CPU time of each reader, the median of `rounds` epochs after a first one."""
    measured: list[list[float]] = [[] for _ in readers]
    for epoch in range(rounds + 1):
        for reader, values in zip(readers, measured, strict=True):
            started = time.process_time()
            count = reader(epoch)
            if epoch:
                values.append(count / (time.process_time() - started))
    return [statistics.median(values) for values in measured]


def main() -> None:
    """Print both rates and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = images_and_labels(arguments.samples)
    fast, slow = rates([ours(*data), torchvisions(*data)], arguments.rounds)
    print(f"torchvision, PIL, DataLoader: {slow:10,.0f} samples/s")
    print(f"luigi_prune:                  {fast:10,.0f} samples/s")
    print(f"ratio:                        {fast / slow:10.1f}")


if __name__ == "__main__":
    main()
