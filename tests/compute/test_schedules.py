import math
import warnings

import numpy as np
import pytest
import torch

from luigi_prune import registry
from luigi_prune.compute.training.schedules import build_schedule
from luigi_prune.config.schema import SchedulerComponent, TrainingConfig
from luigi_prune.errors import ConfigError

BASE = 0.1


def training(*schedulers, epochs=10, optimizer="SGD", **kwargs):
    return TrainingConfig(
        num_epochs=epochs,
        optimizer=optimizer,
        optimizer_kwargs={"lr": BASE, **kwargs},
        lr_schedulers=tuple(SchedulerComponent(**scheduler) for scheduler in schedulers),
    )


def rates(*schedulers, steps_per_epoch=20, **settings):
    return build_schedule(training(*schedulers, **settings), steps_per_epoch).rates


WARMUP = {"type": "WarmupLR", "stepKwargs": {"warmup_epoch": 2}}
MULTI = {"type": "MultiStepLR", "stepKwargs": {"milestones": [4, 7.5]}, "kwargs": {"gamma": 0.1}}


@pytest.mark.parametrize("order", [(WARMUP, MULTI), (MULTI, WARMUP)])
def test_warmup_and_steps_multiply_in_any_order(order):
    steps = np.arange(200)
    expected = BASE * np.minimum(1, (steps + 1) / 40) * np.where(steps >= 80, 0.1, 1) * np.where(steps >= 150, 0.1, 1)
    np.testing.assert_allclose(rates(*order), expected, rtol=1e-12)


def test_without_a_scheduler_the_rate_is_constant():
    assert np.array_equal(rates(), np.full(200, BASE))


def test_polynomial_decay_reaches_zero_and_stays_there():
    found = rates({"type": "PolyLR", "stepKwargs": {"max_epoch": 3}, "kwargs": {"power": 1.0}}, epochs=5)
    np.testing.assert_allclose(found[:60], BASE * (1 - np.arange(60) / 60), rtol=1e-12)
    assert not found[60:].any()
    found = rates({"type": "PolyLR", "stepKwargs": {"max_epoch": 10}})
    np.testing.assert_allclose(found, BASE * (1 - np.arange(200) / 200) ** 0.9, rtol=1e-12)


CHAINABLE = [
    {"type": "StepLR", "stepKwargs": {"step_size": 3}, "kwargs": {"gamma": 0.5}},
    {"type": "CosineAnnealingLR", "stepKwargs": {"T_max": 10}},
    {"type": "ExponentialLR", "kwargs": {"gamma": 0.99}},
    {"type": "LinearLR", "stepKwargs": {"total_iters": 4}},
    {"type": "ConstantLR", "stepKwargs": {"total_iters": 1}, "kwargs": {"factor": 0.3}},
    {"type": "PolynomialLR", "stepKwargs": {"total_iters": 10}},
]


@pytest.mark.parametrize("second", CHAINABLE, ids=lambda scheduler: scheduler["type"])
def test_multiplicative_schedulers_give_what_torch_gives_when_they_are_chained(second):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=BASE)
    steps = {key: int(value * 20) for key, value in second.get("stepKwargs", {}).items()}
    chained = [
        torch.optim.lr_scheduler.MultiStepLR(optimizer, [80, 150], gamma=0.1),
        getattr(torch.optim.lr_scheduler, second["type"])(optimizer, **steps, **second.get("kwargs", {})),
    ]
    expected = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(200):
            expected.append(optimizer.param_groups[0]["lr"])
            for scheduler in chained:
                scheduler.step()
    np.testing.assert_allclose(rates(MULTI, second), expected, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("name", sorted(registry.SCHEDULERS))
def test_every_scheduler_of_the_catalogue_runs(name):
    given = {
        "CosineAnnealingLR": {"stepKwargs": {"T_max": 10}},
        "CosineAnnealingWarmRestarts": {"stepKwargs": {"T_0": 2}},
        "CyclicLR": {"stepKwargs": {"step_size_up": 1}, "kwargs": {"base_lr": 0.01, "max_lr": 0.2}},
        "ExponentialLR": {"kwargs": {"gamma": 0.9}},
        "MultiStepLR": {"stepKwargs": {"milestones": [1]}},
        "OneCycleLR": {"stepKwargs": {"total_steps": 10}, "kwargs": {"max_lr": 0.3}},
        "StepLR": {"stepKwargs": {"step_size": 3}},
        "WarmupLR": WARMUP,
        "PolyLR": {"stepKwargs": {"max_epoch": 10}},
        "PolynomialLR": {"stepKwargs": {"total_iters": 10}},
    }
    found = rates({"type": name, **given.get(name, {})}, momentum=0.9)
    assert found.shape == (200,)
    assert np.isfinite(found).all()
    assert len(np.unique(found)) > 1


def test_one_cycle_moves_the_momentum_too_and_composes_with_a_step():
    cycle = {"type": "OneCycleLR", "stepKwargs": {"epochs": 10}, "kwargs": {"max_lr": 0.4}}
    schedule = build_schedule(training(cycle, momentum=0.9), 20)
    assert schedule.rates.max() == pytest.approx(0.4)
    assert min(schedule.momenta["momentum"]) == pytest.approx(0.85)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=BASE, momentum=0.9)
    schedule.apply(optimizer, 59)
    assert optimizer.param_groups[0]["momentum"] == schedule.momenta["momentum"][59] != 0.9
    both = build_schedule(training(cycle, MULTI, momentum=0.9), 20)
    np.testing.assert_allclose(both.rates[100:150], schedule.rates[100:150] * 0.1, rtol=1e-9)


def test_epochs_become_steps_with_fractions_lists_and_endings():
    by_name = rates({"type": "StepLR", "stepKwargs": {"step_size_epoch": 2.5}, "kwargs": {"gamma": 0.5}})
    assert np.array_equal(np.flatnonzero(np.diff(by_name)) + 1, [50, 100, 150])
    short = rates({"type": "WarmupLR", "stepKwargs": {"warmup_epoch": 0.01}})
    assert math.isclose(short[0], BASE)
    assert math.isclose(rates({"type": "WarmupLR", "stepKwargs": {"warmup_epoch": 0}})[0], BASE)


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        ({"type": "MultiStepLR", "stepKwargs": {"milestoens": [1]}}, "no keyword 'milestoens'"),
        ({"type": "MultiStepLR", "stepKwargs": {"milestones": ["four"]}}, "number of epochs, got 'four'"),
        ({"type": "StepLR", "kwargs": {"gamma": 0.1}}, "StepLR cannot run"),
        ({"type": "OneCycleLR", "stepKwargs": {"total_steps": 4}, "kwargs": {"max_lr": 0.3}}, "OneCycleLR cannot run"),
        ({"type": "ReduceLROnPlateau"}, "every optimization step"),
        ({"type": "WarmUpLR"}, "WarmupLR"),
    ],
)
def test_a_schedule_that_cannot_work_is_a_one_line_error(scheduler, message):
    with pytest.raises(ConfigError, match=message) as caught:
        rates(scheduler)
    assert "\n" not in str(caught.value)
