"""The order of samples and their random numbers, as pure functions of (seed, epoch, index).

So a run can be resumed at any step, with any number of workers or processes.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from luigi_prune.seeds import derive_seed

Indices = NDArray[np.int64]


def epoch_order(samples: int, seed: int, epoch: int) -> Indices:
    """Return the order of the samples in `epoch`: a permutation of range(samples)."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    return torch.randperm(samples, generator=generator).numpy()


def global_batches(order: Indices, batch_size: int) -> list[Indices]:
    """Return `order` split into batches; the last one may be smaller, so that no sample is dropped or repeated."""
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def rank_share(batch: Indices, rank: int, world_size: int) -> Indices:
    """Return the contiguous part of a global batch for `rank`; the first ranks get one more if it is uneven.

    If the batch is smaller than `world_size`, the last ranks get none; rank 0 always has a sample.
    """
    share, remainder = divmod(len(batch), world_size)
    start = rank * share + min(rank, remainder)
    return batch[start : start + share + (rank < remainder)]


def held_out(
    samples: int, fraction: float, seed: int, validation: Indices | None = None
) -> tuple[Indices, Indices, Indices]:
    """Return sorted indices: those kept, and the two halves of those held out, the larger one first.

    int(fraction * samples) are held out, at least one of two or more, unless `validation` says which. A single one is
    in both halves.
    """
    generator = np.random.default_rng(derive_seed(seed, "validation split"))
    if validation is None:
        order = generator.permutation(samples)
        count = max(int(fraction * samples), min(1, samples - 1))
    else:
        kept = np.setdiff1d(np.arange(samples), validation)
        order, count = np.concatenate([generator.permutation(np.unique(validation)), kept]), samples - len(kept)
    half = -(-count // 2)
    first, second = order[:half], order[half:count]
    return np.sort(order[count:]), np.sort(first), np.sort(second if len(second) else first)


def uniforms(seed: int, epoch: int, stream: int, indices: Indices) -> NDArray[np.float64]:
    """Return one number in [0, 1) per sample index, the `stream`-th of this sample in this epoch.

    SplitMix64 (Steele, Lea and Flood 2014, doi 10.1145/2714064.2660195) as a counter-based generator whose counter is
    the index.
    """
    key = np.uint64(derive_seed(seed, "sample", epoch, stream))
    with np.errstate(over="ignore"):
        state = key + (indices.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    state ^= state >> np.uint64(31)
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53
