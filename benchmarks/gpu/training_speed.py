"""Training ResNet20 on CIFAR shapes, data on the device, against a bare loop that does the same."""

from __future__ import annotations

import contextlib
import statistics
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.gpu.facts import Facts
from benchmarks.gpu.subjects import synchronise
from luigi_prune.compute.data import RawData, Samples, Splits
from luigi_prune.compute.networks import build
from luigi_prune.compute.training import train
from luigi_prune.config.schema import Component, TrainingConfig

BATCH = 128
EPOCHS = 3  # of a run, the first of which is not counted
RUNS = 3
LEAST_RATIO = 0.9
SGD = {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-4}


def splits(train_samples: int) -> Splits:
    """Return noise of CIFAR's shape: `train_samples` to train on and a tenth to validate on."""
    drawn = np.random.default_rng(0)
    transforms = (Component(type="ToTensor"),)

    def samples(count: int) -> Samples:
        images = drawn.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        return Samples(RawData(images, drawn.integers(0, 10, count)), transforms)

    training = samples(train_samples)
    validation = samples(train_samples // 10)
    return Splits(training, validation, training.input_shape, calibration=validation)


def settings(**more: Any) -> TrainingConfig:
    """Return a training with SGD and one metric."""
    return TrainingConfig(
        batch_size=BATCH, test_batch_size=256, num_epochs=EPOCHS, optimizer_kwargs=SGD,
        metrics_test=(Component(type="TopK"),), **more,
    )  # fmt: skip


def our_epochs(training: TrainingConfig, data: Splits, device: torch.device) -> list[float]:
    """Return the seconds of each epoch of `train` but the first."""
    seconds: list[float] = []
    network = build("resnet20", (3, 32, 32), 10, seed=0)
    train(network, training, data, seed=0, device=device, on_epoch=lambda record: seconds.append(record.seconds))
    return seconds[1:]


def bare_epochs(half: torch.dtype | None, data: Splits, device: torch.device) -> list[float]:
    """Return the seconds of each epoch of the plainest loop but the first."""
    pairs = [part.get(np.arange(len(part))) for part in (data.train, data.validation)]
    (x, y), (x_val, y_val) = [(a.to(device), b.to(device)) for a, b in pairs]
    network = build("resnet20", (3, 32, 32), 10, seed=0).to(device)
    optimizer, criterion = torch.optim.SGD(network.parameters(), **SGD), nn.CrossEntropyLoss()

    def loss_of(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(device.type, half) if half else contextlib.nullcontext():
            outputs = network(images)
            return outputs, criterion(outputs, labels)

    seconds = []
    for _ in range(EPOCHS):
        synchronise(device)
        began = time.perf_counter()
        network.train()
        for chosen in torch.randperm(len(y)).to(device).split(BATCH):
            optimizer.zero_grad()
            loss_of(x.index_select(0, chosen), y.index_select(0, chosen))[1].backward()
            optimizer.step()
        network.eval()
        correct = torch.zeros((), device=device)
        with torch.no_grad():
            for images, labels in zip(x_val.split(256), y_val.split(256), strict=True):
                correct += (loss_of(images, labels)[0].argmax(1) == labels).sum()
        correct.item()
        seconds.append(time.perf_counter() - began)
    return seconds[1:]


def run(facts: Facts, device: torch.device) -> None:
    """Take turns in bf16, then in fp32 (TF32 in convolutions, torch's default)."""
    on_gpu = device.type == "cuda"
    data, runs = splits(6400 if on_gpu else BATCH), RUNS if on_gpu else 1
    trainings: dict[str, tuple[TrainingConfig, torch.dtype | None]] = {"fp32": (settings(enable_amp=False), None)}
    if "amp_dtype" not in TrainingConfig.model_fields:
        facts.skip("bf16: our throughput / the bare loop's", "TrainingConfig has no amp_dtype")
    elif not on_gpu:
        facts.skip("bf16: our throughput / the bare loop's", "AMP is for CUDA only")
    else:
        bf16 = (settings(enable_amp=True, amp_dtype="bfloat16"), torch.bfloat16)
        trainings = {"bf16": bf16, **trainings}
    for name, (training, half) in trainings.items():
        with facts.attempt(f"{name}: our throughput / the bare loop's"):
            ours, bare = [], []
            for _ in range(runs):
                ours += our_epochs(training, data, device)
                bare += bare_epochs(half, data, device)
            ratio = statistics.median(bare) / statistics.median(ours)
            rates = [len(data.train) / statistics.median(seconds) for seconds in (ours, bare)]
            value = f"{ratio:.3f} (at least {LEAST_RATIO}); {rates[0]:.0f} and {rates[1]:.0f} images/s"
            name = f"{name}: our throughput / the bare loop's"
            facts.check(name, ratio >= LEAST_RATIO or not on_gpu, value, ratio=ratio, ours=ours, bare=bare)
