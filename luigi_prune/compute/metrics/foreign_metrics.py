"""Metrics from outside: classes like those of torchmetrics, or functions of all outputs and targets."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from luigi_prune import registry
from luigi_prune.compute.distributed import Ranks
from luigi_prune.compute.named import resolve
from luigi_prune.config.schema import Component
from luigi_prune.errors import ConfigError
from luigi_prune.registry import MetricRow


def labels_lower_is_better(metrics: Sequence[Component]) -> list[str]:
    """Return the labels of the metrics of which lower is better; raises ConfigError if a metric does not declare it."""
    lower = []
    for metric in metrics:
        row = registry.find("metric", metric.type)
        higher = row.higher_is_better
        if higher is None:
            higher = getattr(resolve(row.path), "higher_is_better", None)
        if higher is None:
            raise ConfigError(
                f"training.metricsTest: {row.name} does not declare whether higher is better; use a MetricRow"
            )
        if not higher:
            lower.append(registry.metric_label(metric))
    return lower


def foreign_metric(row: MetricRow, kwargs: Mapping[str, Any]) -> Any:
    """Return the metric of a foreign row; raises ConfigError for a class that is not like those of torchmetrics."""
    kind = resolve(row.path)
    if not isinstance(kind, type):
        return FunctionMetric(row.name, functools.partial(kind, **kwargs))
    metric = kind(**kwargs)
    if not all(hasattr(metric, name) for name in ("update", "compute", "reset", "metric_state", "_reductions")):
        raise ConfigError(f"training.metricsTest: {row.name} is not a class like those of torchmetrics")
    return StatefulMetric(row.name, metric)


def _pair(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return (outputs, targets), the outputs reshaped to float targets if only axes of length 1 differ."""
    fits = targets.is_floating_point() and outputs.squeeze().shape == targets.squeeze().shape
    return (outputs.reshape(targets.shape) if fits else outputs), targets


def _number(name: str, value: Any) -> float:
    if isinstance(value, Tensor) and value.numel() == 1:
        return float(value)
    if isinstance(value, (int, float)):
        return float(value)
    raise ConfigError(f"training.metricsTest: {name}: expected one number, got {_shown(value)}")


def _shown(value: Any) -> str:
    return f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"


class StatefulMetric:
    """A metric with the interface of torchmetrics, whose states are sums or lists of values."""

    def __init__(self, name: str, metric: Any) -> None:
        self._name, self._metric, self._updated = name, metric, False

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Add a batch."""
        self._metric.to(outputs.device)
        self._metric.update(*_pair(outputs, targets))
        self._updated = True

    def compute(self) -> float:
        """Return the metric over all batches; NaN before the first."""
        return _number(self._name, self._metric.compute()) if self._updated else float("nan")

    def reset(self) -> None:
        """Clear the state."""
        self._metric.reset()
        self._updated = False

    def state(self) -> dict[str, Tensor]:
        """Return the states, lists of values as one tensor each."""
        return {name: _joined(value) for name, value in self._metric.metric_state.items()} if self._updated else {}

    def load(self, state: dict[str, Tensor], device: torch.device) -> None:
        """Restore `state`."""
        if state:
            self._metric.to(device)
            self._set({name: value.to(device) for name, value in state.items()})

    def pool(self, ranks: Ranks) -> None:
        """Replace the states by the sums, or the concatenated values, of all processes."""
        pooled = {}
        for name, value in self.state().items():
            if isinstance(self._metric.metric_state[name], list):
                pooled[name] = ranks.concatenate(value)
            elif self._metric._reductions[name] is torch.sum or _is_sum(self._metric._reductions[name]):
                pooled[name] = value.clone()
                ranks.sum_([pooled[name]])
            else:
                raise ConfigError(f"training.metricsTest: {self._name} cannot be computed by several processes")
        self._set(pooled)

    def _set(self, state: dict[str, Tensor]) -> None:
        for name, value in state.items():
            setattr(self._metric, name, [value] if isinstance(self._metric.metric_state[name], list) else value)
        self._metric._update_count += 1  # or compute() warns about a missing update
        self._updated = True


class FunctionMetric:
    """A function of the outputs and targets of all samples, which are kept until `compute`."""

    def __init__(self, name: str, function: Callable[[Tensor, Tensor], Any]) -> None:
        self._name, self._function = name, function
        self._held: list[tuple[Tensor, Tensor]] = []

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Add a batch."""
        self._held.append(_pair(outputs, targets))

    def compute(self) -> float:
        """Return the function's value; NaN before the first batch."""
        if not self._held:
            return float("nan")
        outputs, targets = (torch.cat(tensors) for tensors in zip(*self._held, strict=True))
        return _number(self._name, self._function(outputs, targets))

    def reset(self) -> None:
        """Clear the state."""
        self._held = []

    def state(self) -> dict[str, Tensor]:
        """Return all outputs and targets."""
        if not self._held:
            return {}
        outputs, targets = (torch.cat(tensors) for tensors in zip(*self._held, strict=True))
        return {"outputs": outputs, "targets": targets}

    def load(self, state: dict[str, Tensor], device: torch.device) -> None:
        """Restore `state`."""
        self._held = [(state["outputs"].to(device), state["targets"].to(device))] if state else []

    def pool(self, ranks: Ranks) -> None:
        """Concatenate the outputs and targets of all processes, in the order of their ranks."""
        state = self.state()
        self._held = [(ranks.concatenate(state["outputs"]), ranks.concatenate(state["targets"]))]


def _joined(value: Any) -> Tensor:
    """Return a state as one tensor."""
    return torch.cat([torch.atleast_1d(part) for part in value]) if isinstance(value, list) else value


def _is_sum(reduction: Any) -> bool:
    return getattr(reduction, "__name__", "") in ("dim_zero_sum", "sum")
