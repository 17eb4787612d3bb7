"""Small trainings on the digits."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import torch
from torch import nn

from luigi_prune.compute.data import Splits, load_splits
from luigi_prune.compute.pruning.low_rank.decomposed import Decomposed
from luigi_prune.compute.pruning.problem.records import Decomposition
from luigi_prune.compute.training import TrainResult, train
from luigi_prune.config.schema import Component, NetworkConfig, SchedulerComponent, TrainingConfig

CPU = torch.device("cpu")
NORMALISED = (Component(type="ToTensor"), Component(type="Normalize", kwargs={"mean": [0.3], "std": [0.38]}))
AUGMENTED = (
    Component(type="RandomCrop", kwargs={"size": 8, "padding": 1}),
    Component(type="RandomHorizontalFlip", kwargs={"p": 0.2}),
)


def settings(**changes: Any) -> TrainingConfig:
    """Return a training of three epochs of 21 steps each, the last with 14 samples."""
    given: dict[str, Any] = {
        "batch_size": 64,
        "num_epochs": 3,
        "transforms_final": NORMALISED,
        "metrics_test": (Component(type="TopK", kwargs={"topk": 1}), Component(type="MCorr")),
        "optimizer_kwargs": {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-4},
        "lr_schedulers": (
            SchedulerComponent(type="MultiStepLR", step_kwargs={"milestones": [2]}),
            SchedulerComponent(type="WarmupLR", step_kwargs={"warmup_epoch": 0.5}),
        ),
    }
    return TrainingConfig(**{**given, **changes})


def splits_of(training: TrainingConfig) -> Splits:
    """Return the digits behind the transforms of `training`."""
    network = NetworkConfig(name="lenet300_100", dataset="Digits", output_size=10)
    return load_splits(network, training, seed=0, training_data="", local_data="")


def mlp(seed: int, hidden: int = 300, rank: int = 0) -> nn.Module:
    """Return an MLP on the digits, its first layer decomposed if a rank is given."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        first: nn.Module = nn.Linear(64, hidden)
        if rank:
            first = Decomposed(nn.Linear(64, rank, bias=False), nn.Linear(rank, hidden), Decomposition(rank))
        second = nn.Linear(hidden, 100, bias=False)
        return nn.Sequential(nn.Flatten(), first, nn.ReLU(), second, nn.ReLU(), nn.Linear(100, 10))


def dropout_net(seed: int = 0) -> nn.Module:
    """Return a small network with BatchNorm and dropout."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            OrderedDict(
                conv=nn.Conv2d(1, 6, 3, padding=1),
                bn=nn.BatchNorm2d(6),
                relu=nn.ReLU(),
                flatten=nn.Flatten(),
                dropout=nn.Dropout(0.3),
                fc=nn.Linear(6 * 64, 10),
            )
        )


def run(
    training: TrainingConfig, network: nn.Module | None = None, splits: Splits | None = None, **given: Any
) -> TrainResult:
    """Return what `train` makes of a small network."""
    given = {"seed": 5, "device": CPU, **given}
    return train(network or dropout_net(), training, splits or splits_of(training), **given)


def assert_same(first: TrainResult, second: TrainResult) -> None:
    """Assert that two results are equal, bit for bit."""
    assert list(first.state) == list(second.state)
    for name in first.state:
        assert torch.equal(first.state[name], second.state[name]), name
    assert list(first.history) == list(second.history)
    for name in first.history:
        np.testing.assert_array_equal(first.history[name], second.history[name], err_msg=name)
    assert (first.rewind_state is None) == (second.rewind_state is None)
    for name in first.rewind_state or {}:
        assert torch.equal(first.rewind_state[name], second.rewind_state[name]), name
