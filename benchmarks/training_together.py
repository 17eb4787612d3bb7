"""Several networks trained together against one after another, on one thread of a CPU.

python benchmarks/training_together.py [--networks lenet300_100 lenet5] [--optimizers SGD Adam] [--numbers 8 16]
    [--kept 1 0.5 0.1] [--seeds same own] [--training-data DIR] [--augment] [--pairs 5]

Prints the quotient of images per CPU second, together / one after another, with quartiles over alternating pairs. Kept:
the share of the weights that are not pruned, in random places; "mixed": one network each of 0.64, 0.41, 0.26, 0.17,
0.11, 0.07, 0.04 and 0.02, in turn. Seeds: "same", all networks read the same batches, as those of one network and
repetition do, whatever the method and keep ratio; "own", none do. Data and settings: those of training_throughput.py,
with a validation image per 18 of training.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Sequence

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from training_throughput import CPU, IMAGES, cut, seconds, settings

from luigi_prune.compute.data import Splits, load_splits
from luigi_prune.compute.networks import build
from luigi_prune.compute.training import Training, train, train_together
from luigi_prune.config.schema import NetworkConfig, TrainingConfig

MIXED = (0.64, 0.41, 0.26, 0.17, 0.11, 0.07, 0.04, 0.02)


def trainings(name: str, splits: Splits, shares: Sequence[float], *, own_seeds: bool) -> list[Training]:
    """Return a training per share of kept weights."""
    made = []
    for number, kept in enumerate(shares):
        network = build(name, splits.train.input_shape, 10, seed=number)
        draws = torch.Generator().manual_seed(number)
        masks = {
            key: torch.rand(value.shape, generator=draws) < kept
            for key, value in network.named_parameters()
            if value.ndim > 1
        }
        made.append(Training(network, splits, number if own_seeds else 0, masks if kept < 1 else {}))
    return made


def one_after_another(members: Sequence[Training], training: TrainingConfig) -> None:
    """Train each alone."""
    for member in members:
        train(member.network, training, member.splits, seed=member.seed, masks=member.masks, device=CPU)


def together(members: Sequence[Training], training: TrainingConfig) -> None:
    """Train all at once."""
    for result in train_together(members, training, device=CPU):
        if isinstance(result, Exception):
            raise result


def quotients(
    name: str, training: TrainingConfig, splits: Splits, shares: Sequence[float], *, own_seeds: bool, pairs: int
) -> list[float]:
    """Return CPU time one after another / together, for `pairs` pairs of runs after a warm-up."""
    found = []
    for pair in range(pairs + 1):
        taken = {}
        for way in (together, one_after_another) if pair % 2 else (one_after_another, together):
            taken[way] = seconds(way, trainings(name, splits, shares, own_seeds=own_seeds), training)
        found.append(taken[one_after_another] / taken[together])
    return sorted(found[1:])


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=["lenet300_100"])
    parser.add_argument("--optimizers", nargs="+", default=["SGD", "Adam"])
    parser.add_argument("--numbers", nargs="+", type=int, default=[8, 16])
    parser.add_argument("--kept", nargs="+", default=["1", "0.5", "0.1", "mixed"])
    parser.add_argument("--seeds", nargs="+", choices=["same", "own"], default=["same", "own"])
    parser.add_argument("--training-data", default="")
    parser.add_argument("--augment", action="store_true")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=5)
    options = parser.parse_args()
    dataset = "MNIST" if options.training_data else "Digits"
    title = f"{dataset}{', augmented' if options.augment else ''}"
    columns = [f"{number}, {seeds} seeds" for number in options.numbers for seeds in options.seeds]
    print(f"| {title} | optimizer | kept | {' | '.join(columns)} |\n|---|---|---|{'---:|' * len(columns)}")
    for name in options.networks:
        for optimizer in options.optimizers:
            training = settings(optimizer, options.epochs, dataset, options.augment)
            config = NetworkConfig(name=name, dataset=dataset, output_size=10)
            splits = load_splits(config, training, seed=0, training_data=options.training_data, local_data="")
            cut(splits.train), cut(splits.validation, IMAGES // 18)
            for kept in options.kept:
                cells = []
                for number in options.numbers:
                    shares = [MIXED[place % 8] if kept == "mixed" else float(kept) for place in range(number)]
                    for seeds in options.seeds:
                        own = seeds == "own"
                        found = quotients(name, training, splits, shares, own_seeds=own, pairs=options.pairs)
                        low, high = np.percentile(found, [25, 75])
                        cells.append(f"{statistics.median(found):.2f} ({low:.2f} to {high:.2f})")
                print(f"| {name} | {optimizer} | {kept} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
