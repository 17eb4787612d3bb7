"""Running sums of the loss and the metrics of an epoch or an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from luigi_prune.compute.distributed import Ranks
from luigi_prune.compute.metrics.losses import Loss, MeanLoss
from luigi_prune.compute.metrics.metric_set import MetricSet
from luigi_prune.config.schema import Component


class Tally:
    """Running sums of the loss and of every metric, over this process's samples until `pool`."""

    def __init__(self, loss: Loss, metrics: Sequence[Component], device: torch.device):
        self._device = device
        self._loss = MeanLoss(loss)
        self._metrics = MetricSet(metrics)

    def add(self, outputs: Tensor, targets: Tensor, value: Tensor, share: int | Tensor) -> None:
        """Add a batch: its outputs, targets, loss and the loss's weight, all without gradients."""
        self._loss.add(value, share)
        self._metrics.update(outputs, targets)

    def reset(self) -> None:
        """Clear the sums."""
        self._loss.reset()
        self._metrics.reset()

    def pool(self, ranks: Ranks) -> None:
        """Replace the sums by those over all processes."""
        if ranks.size > 1:
            sums = torch.tensor(self._loss.sums(), dtype=torch.float64, device=self._device)
            ranks.sum_([sums])
            self._loss.set(*sums.tolist())
            self._metrics.pool(ranks)

    def values(self) -> dict[str, float]:
        """Return "loss", the mean per sample, and each metric under its label."""
        return {"loss": self._loss.value(), **self._metrics.compute()}

    def state(self) -> dict[str, Any]:
        """Return the sums as numbers and tensors."""
        return {"loss": self._loss.sums(), "metrics": self._metrics.state()}

    def load(self, state: dict[str, Any]) -> None:
        """Restore `state`."""
        self._loss.set(*state["loss"])
        self._metrics.load(state["metrics"], self._device)
