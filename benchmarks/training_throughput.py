"""Training against the fastest bare PyTorch loop: `fused` optimizer, no masks, tensors in memory.

python benchmarks/training_throughput.py [--networks lenet300_100 lenet5 resnet8] [--optimizers SGD Adam] [--pairs 9]
    [--images 6400] [--training-data DIR] [--augment]

Prints, per network and optimizer, CPU time of `train` / that of the bare loop, dense and with 80 % of the weights
pruned. Both train the same network on the same samples with the same batch size, optimizer and rates, and compute
loss and accuracy on the validation data after each epoch; the bare loop does nothing else. They run alternately, on
one thread, and the medians of the ratios are shown with their quartiles. Data: Digits padded to 28x28, or MNIST, cut
to 6,400 images and a validation image per 18, if --training-data has it. With --augment both crop and flip by the same
functions.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch import Tensor, nn

from luigi_prune.compute.data import Samples, Splits, load_splits
from luigi_prune.compute.networks import build
from luigi_prune.compute.training import train
from luigi_prune.config.schema import Component, NetworkConfig, SchedulerComponent, TrainingConfig

CPU = torch.device("cpu")
OPTIMIZERS = {"SGD": {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-4}, "Adam": {"lr": 0.0012}}
BATCH_SIZE = {"SGD": 64, "Adam": 60}
IMAGES = 6400


def settings(optimizer: str, epochs: int, dataset: str, augment: bool) -> TrainingConfig:
    """Return a typical training: warm-up and one decay."""
    pad = [Component(type="Pad", kwargs={"padding": 10})] if dataset == "Digits" else []
    moves = [Component(type="RandomCrop", kwargs={"size": 28, "padding": 2}), Component(type="RandomHorizontalFlip")]
    return TrainingConfig(
        batch_size=BATCH_SIZE[optimizer],
        num_epochs=epochs,
        transforms_train=tuple([*pad, *moves] if augment else pad),
        transforms_test=tuple(pad),
        transforms_final=(
            Component(type="ToTensor"),
            Component(type="Normalize", kwargs={"mean": [0.1307], "std": [0.3081]}),
        ),
        metrics_test=(Component(type="TopK"),),
        optimizer=optimizer,
        optimizer_kwargs=OPTIMIZERS[optimizer],
        lr_schedulers=(
            SchedulerComponent(type="MultiStepLR", step_kwargs={"milestones": [epochs - 1]}),
            SchedulerComponent(type="WarmupLR", step_kwargs={"warmup_epoch": 1}),
        ),
    )


def cut(samples: Samples, images: int = IMAGES) -> Samples:
    """Return the first images of a split."""
    samples._chosen = samples._chosen[:images]
    samples.targets = samples.targets[:images]
    return samples


def bare(network: nn.Module, training: TrainingConfig, splits: Splits, masks: dict[str, Tensor]) -> None:
    """Train by the plainest loop; masks are not held."""
    x_all, y_all = splits.train.get(range(len(splits.train)))
    x_val, y_val = splits.validation.get(range(len(splits.validation)))
    optimizer = getattr(torch.optim, training.optimizer)(network.parameters(), **training.optimizer_kwargs, fused=True)
    criterion = nn.CrossEntropyLoss()
    for epoch in range(training.num_epochs):
        network.train()
        for chosen in torch.randperm(len(y_all)).split(training.batch_size):
            if splits.train.random:
                x, y = splits.train.get(chosen.numpy(), epoch, 0)
            else:
                x, y = x_all[chosen], y_all[chosen]
            optimizer.zero_grad()
            criterion(network(x), y).backward()
            optimizer.step()
        network.eval()
        with torch.no_grad():
            correct, loss = torch.zeros(()), torch.zeros(())
            size = training.test_batch_size
            for batch, labels in zip(x_val.split(size), y_val.split(size), strict=True):
                outputs = network(batch)
                loss += criterion(outputs, labels) * len(labels)
                correct += (outputs.argmax(1) == labels).sum()
            loss.item(), correct.item()


def ours(network: nn.Module, training: TrainingConfig, splits: Splits, masks: dict[str, Tensor]) -> None:
    """Train by `train`."""
    train(network, training, splits, seed=0, device=CPU, masks=masks)


def seconds(measured: Callable[..., None], *arguments: object) -> float:
    """Return the CPU time of a call."""
    started = time.process_time()
    measured(*arguments)
    return time.process_time() - started


def ratios(name: str, training: TrainingConfig, splits: Splits, *, pruned: float, pairs: int) -> list[float]:
    """Return our CPU time / the bare loop's, for `pairs` pairs of runs."""
    found = []
    for pair in range(pairs + 1):
        taken = {}
        for measured in (bare, ours) if pair % 2 else (ours, bare):
            network = build(name, splits.train.input_shape, 10, seed=0)
            draws = torch.Generator().manual_seed(0)
            masks = {
                key: torch.rand(value.shape, generator=draws) >= pruned
                for key, value in network.named_parameters()
                if value.ndim > 1
            }
            taken[measured] = seconds(measured, network, training, splits, masks if pruned else {})
        if pair:  # the first one is a warm-up
            found.append(taken[ours] / taken[bare])
    return sorted(found)


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=["lenet300_100", "lenet5", "resnet8"])
    parser.add_argument("--optimizers", nargs="+", default=list(OPTIMIZERS))
    parser.add_argument("--training-data", default="")
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--augment", action="store_true")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=9)
    options = parser.parse_args()
    dataset = "MNIST" if options.training_data else "Digits"
    print(f"| {dataset}{', augmented' if options.augment else ''} | optimizer | dense | masked |\n|---|---|---:|---:|")
    for name in options.networks:
        for optimizer in options.optimizers:
            training = settings(optimizer, options.epochs, dataset, options.augment)
            config = NetworkConfig(name=name, dataset=dataset, output_size=10)
            splits = load_splits(config, training, seed=0, training_data=options.training_data, local_data="")
            cut(splits.train, options.images), cut(splits.validation, options.images // 18)
            cells = []
            for pruned in (0.0, 0.8):
                found = ratios(name, training, splits, pruned=pruned, pairs=options.pairs)
                low, high = np.percentile(found, [25, 75])
                cells.append(f"{statistics.median(found):.2f} ({low:.2f} to {high:.2f})")
            print(f"| {name} | {optimizer} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
