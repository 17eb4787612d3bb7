"""Learning-rate schedules: the rates of all optimization steps, computed before the first step.

They are computed by running torch's schedulers on a dummy optimizer. So a training that resumes, or a retraining that
starts late (learning-rate rewinding), looks up the rate of its step and has no scheduler state to restore.

Several schedulers multiply: each is run alone from the optimizer's rate r, giving r_i(t), and the rate of step t is
r * product of r_i(t) / r. For torch's multiplicative schedulers this equals chaining, in any order. Schedulers that set
the rate outright (such as OneCycleLR) compose, too, whereas in a chain only the last one would take effect.
"""

from __future__ import annotations

import functools
import inspect
import json
import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from luigi_prune import registry
from luigi_prune.compute.named import resolve
from luigi_prune.compute.training.optimizers import build_optimizer
from luigi_prune.config.schema import SchedulerComponent, TrainingConfig
from luigi_prune.errors import ConfigError

_MOMENTA = ("momentum", "betas")  # changed by OneCycleLR and CyclicLR in addition to the rate


class WarmupLR(LRScheduler):
    """A linear ramp: step t (from 0) has the rate r * min(1, (t + 1) / warmup_epoch), with `warmup_epoch` in steps."""

    def __init__(self, optimizer: Optimizer, warmup_epoch: int, last_epoch: int = -1):
        self.warmup_steps = max(1, warmup_epoch)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float | torch.Tensor]:
        """Return the rate of the current step for each parameter group."""
        return [rate * min(1.0, (self.last_epoch + 1) / self.warmup_steps) for rate in self.base_lrs]


class PolyLR(LRScheduler):
    """Polynomial decay: step t has the rate r * (1 - t / max_epoch) ** power, 0 from `max_epoch` (in steps) on.

    The default power is that of DeepLab (arXiv 1606.00915, section 4.1).
    """

    def __init__(self, optimizer: Optimizer, max_epoch: int, power: float = 0.9, last_epoch: int = -1):
        self.max_steps = max(1, max_epoch)
        self.power = power
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float | torch.Tensor]:
        """Return the rate of the current step for each parameter group."""
        remaining = max(0.0, 1 - self.last_epoch / self.max_steps)
        return [rate * remaining**self.power for rate in self.base_lrs]


@dataclass(frozen=True)
class Schedule:
    """The learning rates of all optimization steps, and the momenta that a scheduler changes."""

    rates: NDArray[np.float64]
    momenta: dict[str, tuple[Any, ...]]

    def apply(self, optimizer: Optimizer, step: int) -> float:
        """Set the rate and momenta of `step`, counted from the start of the schedule; return the rate."""
        rate = float(self.rates[step])
        for group in optimizer.param_groups:
            group["lr"] = rate
            for name, values in self.momenta.items():
                group[name] = values[step]
        return rate


def build_schedule(training: TrainingConfig, steps_per_epoch: int) -> Schedule:
    """Return the schedule of `training.num_epochs` epochs; raises ConfigError for a wrong keyword."""
    schedulers = json.dumps([scheduler.model_dump() for scheduler in training.lr_schedulers])
    optimizer = json.dumps([training.optimizer, training.optimizer_kwargs])
    return _schedule(schedulers, optimizer, training.num_epochs * steps_per_epoch, steps_per_epoch)


@functools.lru_cache(maxsize=8)
def _schedule(schedulers: str, optimizer: str, steps: int, steps_per_epoch: int) -> Schedule:
    components = [SchedulerComponent(**scheduler) for scheduler in json.loads(schedulers)]
    name, kwargs = json.loads(optimizer)
    start = float(build_optimizer(name, kwargs, [nn.Parameter(torch.zeros(1))]).param_groups[0]["lr"])
    rates = np.full(steps, start)
    momenta: dict[str, tuple[Any, ...]] = {}
    for position, component in enumerate(components):
        alone, changed = _run_alone(component, name, kwargs, steps, steps_per_epoch)
        rates = alone if position == 0 else rates * (alone / start if start else 0.0)
        momenta.update(changed)
    return Schedule(rates, momenta)


def _run_alone(
    component: SchedulerComponent, optimizer: str, optimizer_kwargs: dict[str, Any], steps: int, steps_per_epoch: int
) -> tuple[NDArray[np.float64], dict[str, tuple[Any, ...]]]:
    """Return the rate of each step with this scheduler alone, and the momenta that it changes."""
    dummy = build_optimizer(optimizer, optimizer_kwargs, [nn.Parameter(torch.zeros(1))])
    group = dummy.param_groups[0]
    scheduler_class = resolve(registry.find("scheduler", component.type).path)
    keywords = {**component.kwargs, **in_steps(component, scheduler_class, steps_per_epoch)}
    rates = np.empty(steps)
    initial = {name: group[name] for name in _MOMENTA if name in group}
    recorded: dict[str, list[Any]] = {name: [] for name in initial}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a scheduler that steps before its optimizer: the dummy never steps
        try:
            scheduler = scheduler_class(dummy, **keywords)
            for step in range(steps):
                rates[step] = group["lr"]
                for name, values in recorded.items():
                    values.append(group[name])
                if step + 1 < steps:
                    scheduler.step()
        except (TypeError, ValueError, KeyError, IndexError, ZeroDivisionError) as error:
            raise ConfigError(
                f"training.lrSchedulers: {registry.plain(component.type)} cannot run for {steps} steps with "
                f"{keywords}: {error}"
            ) from error
    changed = {
        name: tuple(values) for name, values in recorded.items() if any(value != initial[name] for value in values)
    }
    return rates, changed


def in_steps(component: SchedulerComponent, scheduler_class: type, steps_per_epoch: int) -> dict[str, Any]:
    """Return `step_kwargs` converted from epochs to steps, under the names of the constructor's keywords.

    Fractions of an epoch and lists are converted, too; a positive number becomes at least one step. If the constructor
    has no such keyword, the ending `_epoch` or `_epochs` is dropped; OneCycleLR's `epochs` become its `total_steps`.
    """
    accepted = inspect.signature(scheduler_class).parameters
    converted = {}
    for key, value in component.step_kwargs.items():
        name = key
        if component.type == "OneCycleLR" and key == "epochs":
            name = "total_steps"
        elif key not in accepted:
            name = re.sub(r"_?epochs?$", "", key)
        if name not in accepted:
            raise ConfigError(
                f"training.lrSchedulers: {registry.plain(component.type)} has no keyword {key!r}; it has "
                f"{', '.join(accepted)}"
            )
        converted[name] = _steps(value, steps_per_epoch, f"{component.type}.stepKwargs.{key}")
    return converted


def _steps(value: object, steps_per_epoch: int, keyword: str) -> Any:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_steps(item, steps_per_epoch, keyword) for item in value]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise ConfigError(f"training.lrSchedulers: {keyword}: expected a number of epochs, got {value!r}")
    return max(round(value * steps_per_epoch), 1 if value else 0)
