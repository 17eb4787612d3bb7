"""Batches in a given order on the device: sliced from memory, or prefetched by worker processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from luigi_prune.compute.data.sample_order import Indices
from luigi_prune.compute.data.samples import Samples
from luigi_prune.compute.network_inputs import Inputs, split, to_device

_AT_ONCE = 1 << 26  # bytes of the batches that one call slices from the memory of a device


class _Batches(Dataset[tuple[Inputs, Any]]):
    """The batches of an epoch; each depends only on its number, not on the worker that prepares it."""

    def __init__(self, samples: Samples, batches: Sequence[Indices], epoch: int, seed: int):
        self.samples, self.batches, self.epoch, self.seed = samples, batches, epoch, seed

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> tuple[Inputs, Any]:
        return self.samples.get(self.batches[number], self.epoch, self.seed)


def _slices(samples: Samples, batches: Sequence[Indices], epoch: int, seed: int) -> Iterator[tuple[Inputs, Any]]:
    """Yield the batches, several of which are selected and transformed at once: on a device a call costs most."""
    largest = max(map(len, batches), default=1)
    number = max(1, _AT_ONCE // max(1, largest * samples.sample_bytes))
    for begin in range(0, len(batches), number):
        together = batches[begin : begin + number]
        x, y = samples.get(np.concatenate(together), epoch, seed)
        sizes = [len(batch) for batch in together]
        yield from zip(split(x, sizes), split(y, sizes), strict=True)


def load_batches(
    samples: Samples, batches: Sequence[Indices], *, epoch: int, seed: int, device: torch.device, workers: int = 0
) -> Iterator[tuple[Inputs, Any]]:
    """Yield (x, y) on `device` for each batch of sample indices, in order.

    `workers` processes prepare batches that are not sliced from memory; the result does not depend on their number.
    """
    source: Iterator[tuple[Inputs, Any]]
    if device.type != "cpu" and samples.in_memory:
        source = _slices(samples, batches, epoch, seed)
    # A daemon may not have children, and copying tensors in memory between processes only costs time.
    elif workers == 0 or samples.in_memory or multiprocessing.current_process().daemon:
        source = (samples.get(batch, epoch, seed) for batch in batches)
    else:
        source = iter(
            DataLoader(
                _Batches(samples, batches, epoch, seed),
                batch_size=None,
                num_workers=workers,
                pin_memory=device.type == "cuda",
                generator=torch.Generator(),  # the default would draw from the global generator
            )
        )
    for x, y in source:
        yield to_device(x, device, non_blocking=True), to_device(y, device, non_blocking=True)
