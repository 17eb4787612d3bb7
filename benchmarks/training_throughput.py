"""Training throughput relative to a bare PyTorch loop.

python benchmarks/training_throughput.py [--networks lenet5_caffe resnet8]

Prints one ratio per network. Both loops train the same network on the same tensors with the same batch size, optimizer
and base learning rate, and compute loss and accuracy on the validation data after each epoch; the bare loop does
nothing else. They run alternately. CPU times on one thread are compared, so that other processes have little influence.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import nn

from luigi_prune.compute.data import Splits, load_splits
from luigi_prune.compute.networks import build
from luigi_prune.compute.training import train
from luigi_prune.config.schema import Component, NetworkConfig, SchedulerComponent, TrainingConfig

CPU = torch.device("cpu")


def settings(epochs: int, batch_size: int) -> TrainingConfig:
    """Return a typical training: SGD with momentum, warm-up, one decay; digits padded to 16x16 for LeNet-5."""
    return TrainingConfig(
        batch_size=batch_size,
        num_epochs=epochs,
        transforms_final=(
            Component(type="Pad", kwargs={"padding": 4}),
            Component(type="ToTensor"),
            Component(type="Normalize", kwargs={"mean": [0.3], "std": [0.38]}),
        ),
        metrics_test=(Component(type="TopK"),),
        optimizer_kwargs={"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-4},
        lr_schedulers=(
            SchedulerComponent(type="MultiStepLR", step_kwargs={"milestones": [epochs - 1]}),
            SchedulerComponent(type="WarmupLR", step_kwargs={"warmup_epoch": 1}),
        ),
    )


def bare_seconds(network: nn.Module, training: TrainingConfig, splits: Splits) -> float:
    """Return the CPU time of the plainest loop over all epochs."""
    x, y = splits.train.get(range(len(splits.train)))
    x_val, y_val = splits.validation.get(range(len(splits.validation)))
    optimizer = torch.optim.SGD(network.parameters(), **training.optimizer_kwargs)
    criterion = nn.CrossEntropyLoss()
    started = time.process_time()
    for _ in range(training.num_epochs):
        network.train()
        for chosen in torch.randperm(len(y)).split(training.batch_size):
            optimizer.zero_grad()
            criterion(network(x[chosen]), y[chosen]).backward()
            optimizer.step()
        network.eval()
        with torch.no_grad():
            correct, loss = torch.zeros(()), torch.zeros(())
            for batch, labels in zip(x_val.split(training.batch_size), y_val.split(training.batch_size), strict=True):
                outputs = network(batch)
                loss += criterion(outputs, labels) * len(labels)
                correct += (outputs.argmax(1) == labels).sum()
            loss.item(), correct.item()
    return time.process_time() - started


def our_seconds(network: nn.Module, training: TrainingConfig, splits: Splits) -> float:
    """Return the CPU time of `train` over all epochs."""
    started = time.process_time()
    train(network, training, splits, seed=0, device=CPU)
    return time.process_time() - started


def ratio(name: str, epochs: int, batch_size: int, pairs: int) -> float:
    """Return the median of bare seconds / our seconds over `pairs` of runs."""
    training = settings(epochs, batch_size)
    config = NetworkConfig(name=name, dataset="Digits", output_size=10)
    splits = load_splits(config, training, seed=0, training_data="", local_data="")
    ratios = []
    for pair in range(pairs + 1):
        seconds = {}
        for measure in (bare_seconds, our_seconds) if pair % 2 else (our_seconds, bare_seconds):
            seconds[measure] = measure(build(name, splits.input_shape, 10, seed=0), training, splits)
        if pair:  # the first one is a warm-up
            ratios.append(seconds[bare_seconds] / seconds[our_seconds])
    return statistics.median(ratios)


def main() -> None:
    """Print the ratio of each network."""
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=["lenet5_caffe", "resnet8"])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--pairs", type=int, default=15)
    arguments = parser.parse_args()
    for name in arguments.networks:
        value = ratio(name, arguments.epochs, arguments.batch_size, arguments.pairs)
        print(f"{name} on Digits, batch {arguments.batch_size}: throughput / bare loop = {value:.3f} (goal: >= 0.95)")


if __name__ == "__main__":
    main()
