"""Small trainings on the digits, on any device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from luigi_prune.compute.data import Splits, load_splits, load_test
from luigi_prune.compute.metrics.evaluation import evaluate
from luigi_prune.compute.networks import build
from luigi_prune.compute.training import TrainResult, train
from luigi_prune.config.schema import Component, NetworkConfig, SchedulerComponent, TrainingConfig

TOP1 = "TopK1"


def settings(**changes: Any) -> TrainingConfig:
    """Return four epochs of 21 steps with momentum, warm-up and one decay, on randomly cropped digits."""
    given: dict[str, Any] = {
        "batch_size": 64,
        "num_epochs": 4,
        "transforms_train": (Component(type="RandomCrop", kwargs={"size": 8, "padding": 1}),),
        "transforms_final": (
            Component(type="ToTensor"), Component(type="Normalize", kwargs={"mean": [0.305], "std": [0.376]}),
        ),
        "metrics_test": (Component(type="TopK", kwargs={"topk": 1}),),
        "optimizer_kwargs": {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-4},
        "lr_schedulers": (
            SchedulerComponent(type="MultiStepLR", step_kwargs={"milestones": [3]}),
            SchedulerComponent(type="WarmupLR", step_kwargs={"warmup_epoch": 0.5}),
        ),
    }  # fmt: skip
    return TrainingConfig(**{**given, **changes})


def splits_of(training: TrainingConfig) -> Splits:
    """Return the digits behind the transforms of `training`; a training moves them to its device."""
    network = NetworkConfig(name="resnet8", dataset="Digits", output_size=10)
    return load_splits(network, training, seed=0, training_data="", local_data="")


def network(seed: int) -> nn.Module:
    """Return ResNet8 for the digits."""
    return build("resnet8", (1, 8, 8), 10, seed=seed)


def train_digits(training: TrainingConfig, device: torch.device, seed: int = 0, **more: Any) -> TrainResult:
    """Return what training makes of ResNet8."""
    return train(network(seed), training, splits_of(training), seed=seed, device=device, **more)


def accuracy(training: TrainingConfig, state: dict[str, Tensor], device: torch.device) -> float:
    """Return the test accuracy of trained weights."""
    fresh = network(0)
    fresh.load_state_dict(state)
    samples = load_test("Digits", training, training_data="", local_data="")
    found = evaluate(
        fresh, samples, loss=training.loss, metrics=training.metrics_test, batch_size=256, device=device
    )  # fmt: skip
    return found[TOP1]


def differences(first: TrainResult, second: TrainResult) -> tuple[list[str], float]:
    """Return the names of weights and series of two results that are not the same bits, and the largest difference."""
    named = [(name, first.state[name].numpy(), second.state[name].numpy()) for name in first.state]
    named += [(name, first.history[name], second.history[name]) for name in first.history]
    names = [name for name, one, other in named if not np.array_equal(one, other)]
    largest = max((float(np.abs(one - other).max()) for _, one, other in named if one.size), default=0.0)
    return names, largest


def main(device: str, deterministic: str, checkpoint: str) -> None:
    """Train with a checkpoint after every epoch and say when each is over: `resume.py` kills this process."""
    torch.use_deterministic_algorithms(deterministic == "deterministic")
    train_digits(
        settings(),
        torch.device(device),
        checkpoint=Path(checkpoint),
        checkpoint_seconds=0,
        on_epoch=lambda record: print("epoch", record.epoch, flush=True),
    )


if __name__ == "__main__":
    import sys

    main(*sys.argv[1:])
