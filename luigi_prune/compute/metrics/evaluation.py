"""The loss and the metrics of a network on validation or test samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from luigi_prune.compute.data.loading import load_batches
from luigi_prune.compute.data.sample_order import global_batches, rank_share
from luigi_prune.compute.data.samples import Samples
from luigi_prune.compute.distributed import Ranks
from luigi_prune.compute.memory import explain_oom
from luigi_prune.compute.metrics.class_quality import ClassQuality
from luigi_prune.compute.metrics.losses import Loss
from luigi_prune.compute.metrics.tally import Tally
from luigi_prune.compute.network_inputs import call, prediction
from luigi_prune.config.schema import Component


def evaluate(
    network: nn.Module,
    samples: Samples,
    *,
    loss: str,
    loss_kwargs: Mapping[str, Any] | None = None,
    metrics: Sequence[Component],
    batch_size: int,
    device: torch.device,
    loader_workers: int = 0,
    classes: ClassQuality | None = None,
) -> dict[str, float]:
    """Return "loss", the mean per sample, and each metric under its label, in evaluation mode and without gradients.

    The network is moved to `device`; its mode does not change. All outputs are added to `classes`.
    """
    cure = "choose a smaller one, or another device (luigi.cfg: [compute] device)"
    with explain_oom(device, f"evaluation with testBatchSize {batch_size}", cure):
        network.to(device)
        criterion = Loss(loss, loss_kwargs or {}).to(device)
        tally = (
            Tally(criterion, metrics, device) if classes is None else _WithClasses(criterion, metrics, device, classes)
        )
        measure(network, samples, criterion, tally, batch_size=batch_size, device=device, loader_workers=loader_workers)
        return tally.values()


class _WithClasses(Tally):
    """A tally that shows all outputs to a `ClassQuality`, too."""

    def __init__(self, loss: Loss, metrics: Sequence[Component], device: torch.device, classes: ClassQuality):
        super().__init__(loss, metrics, device)
        self._classes = classes

    def add(self, outputs: torch.Tensor, targets: torch.Tensor, value: torch.Tensor, share: int | torch.Tensor) -> None:
        super().add(outputs, targets, value, share)
        self._classes.add(outputs, targets)


def measure(
    network: nn.Module,
    samples: Samples,
    loss: Loss,
    tally: Tally,
    *,
    batch_size: int,
    device: torch.device,
    ranks: Ranks | None = None,
    loader_workers: int = 0,
) -> None:
    """Set `tally` to the sums over `samples` of all processes, each of which evaluates its share of every batch."""
    ranks = ranks or Ranks()
    tally.reset()
    shares = [
        rank_share(batch, ranks.rank, ranks.size) for batch in global_batches(np.arange(len(samples)), batch_size)
    ]
    shares = [share for share in shares if len(share)]
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad():
            loading = load_batches(samples, shares, epoch=0, seed=0, device=device, workers=loader_workers)
            for x, y in loading:
                outputs = call(network, x)
                tally.add(prediction(outputs), y, loss(outputs, y), loss.share(y))
    finally:
        network.train(was_training)
    tally.pool(ranks)
