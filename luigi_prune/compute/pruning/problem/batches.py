"""Calibration batches merged into fewer, larger ones."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from luigi_prune.compute.pruning.problem.records import Batches

LARGEST_BATCH = 128
LARGEST_GRAPH = 2**26  # numbers that layers compute in a merged batch: a gigabyte for a forward and backward


def merge_batches(batches: Batches, largest: int = LARGEST_BATCH) -> Batches:
    """Return the same samples in fewer batches of at most `largest`: in evaluation mode samples do not interact."""
    merged: Batches = []
    held: list[tuple[Tensor, Tensor]] = []

    def flush() -> None:
        if held:
            merged.append((torch.cat([x for x, _ in held]), torch.cat([y for _, y in held])))
            held.clear()

    for inputs, targets in batches:
        same = not held or (held[0][0].shape[1:] == inputs.shape[1:] and held[0][1].shape[1:] == targets.shape[1:])
        if not same or sum(len(x) for x, _ in held) + len(inputs) > largest:
            flush()
        held.append((inputs, targets))
    flush()
    return merged


def merge_for_gradients(batches: Batches, outputs: Mapping[str, int]) -> Batches:
    """Return the same samples in fewer batches, as large as a backward pass fits into memory, none smaller than before.

    `outputs`: per layer how many numbers it computes for one sample.
    """
    return merge_batches(batches, min(LARGEST_BATCH, LARGEST_GRAPH // max(1, sum(outputs.values()))))
