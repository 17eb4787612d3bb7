"""Trainings in lockstep: each ends as it does alone, whatever becomes of the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from luigi_prune.compute.training import Training, TrainResult, shared_batches, together, train_together
from luigi_prune.compute.training.explicit_layers import BlockLinear, ExplicitLinear, SparseLinear
from luigi_prune.compute.training.explicit_mlps import ExplicitMlps
from luigi_prune.compute.training.lean_steps import OptimizerSteps
from luigi_prune.compute.training.optimizers import build_optimizer
from luigi_prune.compute.training.steppers import OneByOne
from luigi_prune.config.schema import SchedulerComponent, TrainingConfig
from luigi_prune.errors import ConfigError, Interrupted
from tests.compute.digits_training import AUGMENTED, CPU, assert_same, dropout_net, mlp, run, settings, splits_of

SHORT = settings(num_epochs=2)
MOMENTA = {"optimizer": "Adam", "optimizer_kwargs": {"lr": 0.002, "amsgrad": True}}
ONE_CYCLE = SchedulerComponent(type="OneCycleLR", kwargs={"max_lr": 0.01}, step_kwargs={"epochs": 2})


def masks_of(network: nn.Module, kept: float, *, rows: bool = False) -> dict[str, Tensor]:
    """Return masks that keep a share of the weights, or whole filters and neurons."""
    draws = torch.Generator().manual_seed(3)
    return {
        name: (torch.rand(len(value) if rows else value.shape, generator=draws) < kept)
        .reshape(-1, *[1] * (value.ndim - 1) if rows else value.shape[1:])
        .expand(value.shape)
        for name, value in network.named_parameters()
        if value.ndim > 1 and len(value) > 10
    }


def convolutions(number: int) -> tuple[nn.Module, dict[str, Tensor]]:
    """Return a network with BatchNorm and dropout, which stays outside `ExplicitMlps`."""
    network = dropout_net(number)
    return network, masks_of(network, 0.5) if number else {}


def mlps(number: int) -> tuple[nn.Module, dict[str, Tensor]]:
    """Return MLPs: dense, few weights kept, neurons kept, low rank."""
    network = mlp(number, rank=5 if number == 3 else 0)
    masks = {0: dict[str, Tensor](), 1: masks_of(network, 0.1), 2: masks_of(network, 0.5, rows=True)}
    return network, masks.get(number, {})


def group(make: Callable[[int], Any], training: TrainingConfig, size: int = 4) -> list[Training]:
    """Return trainings, of which each two read equal batches."""
    splits = splits_of(training)
    made = [make(number) for number in range(size)]
    return [Training(network, splits, 5 + number // 2, masks) for number, (network, masks) in enumerate(made)]


def alone(make: Callable[[int], Any], training: TrainingConfig, size: int = 4) -> list[TrainResult]:
    """Return what each training of `group` results in alone."""
    return [
        run(training, one.network, one.splits, seed=one.seed, masks=one.masks) for one in group(make, training, size)
    ]


def assert_close(first: TrainResult, second: TrainResult) -> None:
    """Assert that two results agree but for rounding, pruned entries in every bit."""
    for name, value in first.state.items():
        torch.testing.assert_close(second.state[name], value, rtol=1e-4, atol=1e-5, msg=name)
        assert torch.equal(value == 0, second.state[name] == 0), name
    for name, values in first.history.items():
        np.testing.assert_allclose(second.history[name], values, rtol=1e-3, err_msg=name)


def succeeded(results: list[TrainResult | Exception]) -> list[TrainResult]:
    """Return the results, of which none may be an exception."""
    for result in results:
        if isinstance(result, Exception):
            raise result
    return [result for result in results if isinstance(result, TrainResult)]


@pytest.mark.parametrize(
    ("make", "changes"),
    [
        (convolutions, {"transforms_train": AUGMENTED}),
        (mlps, {"transforms_train": AUGMENTED, "loss_kwargs": {"reduction": "mean"}}),
        (mlps, {"lr_schedulers": (ONE_CYCLE,), **MOMENTA}),
        (mlps, {"loss_kwargs": {"label_smoothing": 0.1}, "early_stop_epoch": 1}),
    ],
)
def test_each_ends_as_it_does_alone(make, changes, monkeypatch):
    training = settings(num_epochs=2, **changes)
    expected = alone(make, training)
    steppers, loads = [], []
    choose, load = together.choose, shared_batches.load_batches
    monkeypatch.setattr(together, "choose", lambda runs: steppers.append(choose(runs)) or steppers[-1])
    monkeypatch.setattr(shared_batches, "load_batches", lambda *a, **k: loads.append(k["seed"]) or load(*a, **k))
    found = succeeded(train_together(group(make, training), training, device=CPU))
    for one, other in zip(expected, found, strict=True):
        (assert_same if make is convolutions else assert_close)(one, other)
    assert [type(each) for each in steppers] == [OneByOne if make is convolutions else ExplicitMlps]
    assert sorted(loads) == [5, 5, 6, 6]  # once an epoch for those of a seed
    if make is mlps:
        assert steppers[0]._joint_loss == ("label_smoothing" not in training.loss_kwargs)
        kinds = [[type(layer) for layer in layers] for layers in steppers[0]._layers]
        dense = [ExplicitLinear] * 3
        sparse, neurons = [*[SparseLinear] * 2, ExplicitLinear], [*[BlockLinear] * 2, ExplicitLinear]
        assert kinds == [dense, sparse, neurons, [*dense, ExplicitLinear]]


@pytest.mark.parametrize("make", [convolutions, mlps])
def test_a_member_goes_on_in_another_group(make, tmp_path: Path):
    def stopping(steps: int) -> Callable[[], bool]:
        left = iter(range(steps - 1))
        return lambda: next(left, None) is None

    expected = alone(make, SHORT)
    checkpoints = [tmp_path / str(number) for number in range(4)]
    first = [
        replace(one, checkpoint=path, should_stop=stopping(steps))
        for one, path, steps in zip(group(make, SHORT), checkpoints, (3, 9, 25, 25), strict=True)
    ]
    for result in train_together(first, SHORT, device=CPU):
        assert isinstance(result, Interrupted)
    again = [replace(one, checkpoint=path) for one, path in zip(group(make, SHORT), checkpoints, strict=True)]
    last = run(
        SHORT, again[3].network, again[3].splits, seed=again[3].seed, masks=again[3].masks, checkpoint=checkpoints[3]
    )
    found = [*succeeded(train_together(again[2::-1], SHORT, device=CPU))[::-1], last]
    for one, other in zip(expected, found, strict=True):
        (assert_same if make is convolutions else assert_close)(one, other)


class Breaking(nn.Module):
    """A network that fails at its third batch, and spoils its inputs until then."""

    def __init__(self) -> None:
        super().__init__()
        self.network, self.calls = dropout_net(), 0

    def forward(self, x: Tensor) -> Tensor:
        x.mul_(0)
        self.calls += 1
        if self.calls == 3:
            raise ArithmeticError("the third batch")
        return self.network(x)


def refuse(record: object) -> None:
    raise OSError("no place for a record")


@pytest.mark.parametrize("make", [convolutions, mlps])
def test_the_failure_of_one_touches_no_other(make, monkeypatch):
    expected = alone(make, SHORT)
    members = group(make, SHORT)
    splits = members[0].splits
    damaged = splits_of(SHORT)
    get = damaged.train.get
    monkeypatch.setattr(damaged.train, "get", lambda rows, *which: get(rows + 10_000 * (len(rows) < 64), *which))
    wrong = splits_of(SHORT)
    wrong.train.targets[17] = 10  # no class
    failing = [
        Training(Breaking(), splits, 5),
        Training(dropout_net(), splits, 5, on_epoch=refuse),
        Training(dropout_net(), damaged, 5),  # its last batch cannot be read
        Training(mlp(0), wrong, 5),
        Training(mlp(0), splits, 5, masks={"missing": torch.ones(1, dtype=torch.bool)}),
    ]
    if make is mlps:
        failing = failing[2:]
        failing[0] = replace(failing[0], network=mlp(0))
    ended: list[int] = []
    results = train_together([*failing, *members], SHORT, device=CPU, ended=lambda number, result: ended.append(number))
    for one, other in zip(expected, succeeded(results[len(failing) :]), strict=True):
        (assert_same if make is convolutions else assert_close)(one, other)
    kinds = [ArithmeticError, OSError, IndexError, ConfigError, ConfigError][-len(failing) :]
    for result, kind in zip(results, kinds, strict=False):
        assert isinstance(result, kind), result
    assert sorted(ended) == list(range(len(results)))
    assert set(ended[: len(failing)]) == set(range(len(failing)))


@pytest.mark.parametrize(
    "keywords",
    [
        {"name": "SGD", "lr": 0.1},
        {"name": "SGD", "lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
        {"name": "SGD", "lr": 0.1, "momentum": 0.9, "maximize": True},
        {"name": "Adam", "lr": 0.1, "weight_decay": 0.1},
        {"name": "Adam", "lr": 0.1, "amsgrad": True, "betas": [0.5, 0.6]},
        {"name": "AdamW", "lr": 0.1},
    ],
)
def test_a_lean_step_is_the_step_of_torch(keywords):
    def weights(lean: bool) -> list[Tensor]:
        draws = torch.Generator().manual_seed(0)
        parameters = [nn.Parameter(torch.randn(size, generator=draws)) for size in (7, 100)]
        kwargs = {key: value for key, value in keywords.items() if key != "name"}
        optimizer = build_optimizer(keywords["name"], kwargs, parameters)
        steps = OptimizerSteps(optimizer)
        calls = []
        optimizer.register_step_pre_hook(lambda *_: calls.append(1)) if not lean else None
        for number in range(4):
            steps.zero_grad()
            optimizer.param_groups[0]["lr"] = 0.1 / (1 + number)
            for parameter in parameters[: 1 if number == 2 else 2]:  # one without a gradient
                parameter.grad = torch.randn(parameter.shape, generator=draws)
            if lean:
                steps.step()
                assert steps._states is not None
            else:
                optimizer.step()
        assert len(calls) == (0 if lean else 4)
        return parameters

    for one, other in zip(weights(lean=True), weights(lean=False), strict=True):
        assert torch.equal(one, other)
