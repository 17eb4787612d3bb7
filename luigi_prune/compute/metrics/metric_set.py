"""The metrics of an experiment, computed by torchmetrics.

An update of torchmetrics takes as long as a small network's training step, so outputs are collected and passed on
several batches at a time. All states are sums or concatenations: they can be saved in the middle of an epoch and
pooled over processes.

torchmetrics is imported when a metric is first needed: that takes longer than importing torch, and no pruning does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from luigi_prune import registry
from luigi_prune.compute.distributed import Ranks
from luigi_prune.compute.metrics.foreign_metrics import foreign_metric
from luigi_prune.compute.metrics.likelihoods import MeanOfSamples
from luigi_prune.compute.named import resolve
from luigi_prune.config.schema import Component
from luigi_prune.errors import ConfigError

State = dict[str, Tensor]
_HELD_BATCHES = 256
_HELD_ELEMENTS = 1 << 20


class Metric(Protocol):
    """A running metric."""

    def update(self, outputs: Tensor, targets: Tensor) -> None: ...

    def compute(self) -> float: ...

    def reset(self) -> None: ...

    def state(self) -> State: ...

    def load(self, state: State, device: torch.device) -> None: ...

    def pool(self, ranks: Ranks) -> None:
        """Replace the state by that of all processes together."""


class ClassificationMetric:
    """A metric whose state is counts; `build` returns torchmetrics' metric for a number of classes."""

    def __init__(self, name: str, build: Callable[[int], Any]):
        self._name = name
        self._build = build
        self._classes = 0
        self._metric: Any = None

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Add a batch: outputs (batch, classes, ...) and class numbers (batch, ...).

        Pixels whose number is that of no class, such as the 255 at the borders of objects, do not count.
        """
        if self._metric is None:
            self._start(outputs.shape[1], outputs.device)
        if targets.ndim > 1:
            counted = (targets >= 0) & (targets < outputs.shape[1])
            outputs, targets = outputs.movedim(1, -1)[counted], targets[counted]
        self._metric.update(outputs, targets)

    def compute(self) -> float:
        """Return the metric over all batches; NaN before the first."""
        if self._metric is None:
            return float("nan")
        # One number, or one per class, of which the last is returned (F1 of two classes).
        return float(self._metric.compute().reshape(-1)[-1])

    def reset(self) -> None:
        """Clear the counts; torchmetrics' metric is reused, because building one takes a millisecond."""
        if self._metric is not None:
            self._metric.reset()

    def state(self) -> State:
        """Return the counts and the number of classes."""
        if self._metric is None:
            return {}
        return {"classes": torch.tensor(self._classes), **self._metric.metric_state}

    def load(self, state: State, device: torch.device) -> None:
        """Restore `state`."""
        if state:
            self._start(int(state["classes"]), device)
            self._set({name: count.to(device) for name, count in state.items() if name != "classes"})

    def pool(self, ranks: Ranks) -> None:
        """Replace the counts by the sums over all processes."""
        counts = {name: count.clone() for name, count in self._metric.metric_state.items()}
        ranks.sum_(list(counts.values()))
        self._set(counts)

    def _start(self, classes: int, device: torch.device) -> None:
        if classes < 2:
            raise ConfigError(
                f"training.metricsTest: {self._name} needs at least 2 outputs, but network.outputSize is {classes}"
            )
        self._classes = classes
        self._metric = self._build(classes).to(device)

    def _set(self, counts: State) -> None:
        for name, count in counts.items():
            setattr(self._metric, name, count)
        self._metric._update_count += 1  # or compute() warns about a missing update


class CorrelationMetric:
    """A correlation of targets with outputs: with a single output, or with the class of the largest of several."""

    def __init__(self, correlation: Callable[[Tensor, Tensor], Tensor]):
        self._correlation = correlation
        self._pairs: list[Tensor] = []  # (2, samples) each

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Add a batch: outputs (batch,), (batch, 1) or (batch, classes) and targets (batch,)."""
        values = outputs.argmax(1) if outputs.ndim > 1 and outputs.shape[1] > 1 else outputs
        self._pairs.append(torch.stack([values.reshape(-1).float(), targets.reshape(-1).float()]))

    def compute(self) -> float:
        """Return the correlation; NaN for fewer than two samples or a constant."""
        pairs = self._joined_pairs()
        if pairs.shape[1] < 2 or bool((pairs == pairs[:, :1]).all(1).any()):
            return float("nan")
        return float(self._correlation(pairs[0], pairs[1]))

    def reset(self) -> None:
        """Clear the state."""
        self._pairs = []

    def state(self) -> State:
        """Return all pairs of values, (2, samples)."""
        return {"pairs": self._joined_pairs()} if self._pairs else {}

    def load(self, state: State, device: torch.device) -> None:
        """Restore `state`."""
        self._pairs = [pairs.to(device) for pairs in state.values()]

    def pool(self, ranks: Ranks) -> None:
        """Concatenate the values of all processes, in the order of their ranks."""
        self._pairs = [ranks.concatenate(self._joined_pairs().T.contiguous()).T]

    def _joined_pairs(self) -> Tensor:
        return torch.cat(self._pairs, dim=1) if self._pairs else torch.empty(2, 0)


def _of_classes(name: str) -> Any:
    return resolve(f"torchmetrics.classification:{name}")


def _correlation(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda outputs, targets: resolve(f"torchmetrics.functional:{name}")(outputs, targets)


def TopK(topk: int = 1) -> Metric:
    """Return the fraction of samples whose class is among the `topk` largest outputs; 1 for at most `topk` classes."""
    return ClassificationMetric(
        "TopK",
        lambda classes: _of_classes("MulticlassAccuracy")(
            classes, top_k=min(topk, classes), average="micro", validate_args=False, sync_on_compute=False
        ),
    )


def IoU() -> Metric:
    """Return the intersection over union (Jaccard index), averaged over classes."""
    return ClassificationMetric(
        "IoU",
        lambda classes: _of_classes("MulticlassJaccardIndex")(classes, validate_args=False, sync_on_compute=False),
    )


def F1() -> Metric:
    """Return the F1 score: of class 1 if there are two classes, else averaged over classes."""

    def build(classes: int) -> Any:
        average = "none" if classes == 2 else "macro"
        return _of_classes("MulticlassF1Score")(classes, average=average, validate_args=False, sync_on_compute=False)

    return ClassificationMetric("F1", build)


def MCorr() -> Metric:
    """Return the Matthews correlation coefficient."""
    return ClassificationMetric(
        "MCorr",
        lambda classes: _of_classes("MulticlassMatthewsCorrCoef")(classes, validate_args=False, sync_on_compute=False),
    )


def Pearson() -> Metric:
    """Return Pearson's correlation coefficient."""
    return CorrelationMetric(_correlation("pearson_corrcoef"))


def SpearmanRank() -> Metric:
    """Return Spearman's rank correlation coefficient."""
    return CorrelationMetric(_correlation("spearman_corrcoef"))


def Dummy() -> Metric:
    """Return a metric that is always 0, for callers that need a second one."""
    return MeanOfSamples(lambda outputs: outputs.new_zeros(len(outputs)))


class MetricSet:
    """The metrics of an experiment by label, updated several batches at a time."""

    def __init__(self, components: Sequence[Component]):
        self._metrics: dict[str, Metric] = {}
        for component in components:
            row = registry.find("metric", component.type)
            try:
                built = foreign_metric(row, component.kwargs) if registry.is_foreign(str(row.path)) else None
                self._metrics[registry.metric_label(component)] = built or resolve(row.path)(**component.kwargs)
            except (TypeError, ValueError) as error:
                raise ConfigError(f"training.metricsTest: {row.name}: {error}") from error
        self._held: list[tuple[Tensor, Tensor]] = []
        self._elements = 0

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Add a batch: outputs (batch, classes) without gradients, targets (batch,)."""
        self._held.append((outputs, targets))
        self._elements += outputs.numel()
        if len(self._held) >= _HELD_BATCHES or self._elements >= _HELD_ELEMENTS:
            self._flush()

    def compute(self) -> dict[str, float]:
        """Return each label's value over all batches."""
        self._flush()
        return {label: metric.compute() for label, metric in self._metrics.items()}

    def reset(self) -> None:
        """Clear the state."""
        self._held, self._elements = [], 0
        for metric in self._metrics.values():
            metric.reset()

    def state(self) -> dict[str, State]:
        """Return each label's state."""
        self._flush()
        return {label: metric.state() for label, metric in self._metrics.items()}

    def load(self, states: dict[str, State], device: torch.device) -> None:
        """Restore `states`."""
        for label, state in states.items():
            self._metrics[label].load(state, device)

    def pool(self, ranks: Ranks) -> None:
        """Replace every state by that of all processes together; every process must have added a batch."""
        self._flush()
        for metric in self._metrics.values():
            metric.pool(ranks)

    def _flush(self) -> None:
        if self._held:
            outputs, targets = (torch.cat(tensors) for tensors in zip(*self._held, strict=True))
            for metric in self._metrics.values():
                metric.update(outputs.float(), targets)
            self._held, self._elements = [], 0
