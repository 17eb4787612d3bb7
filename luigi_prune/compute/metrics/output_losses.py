"""Losses that read a network's output as it is: auxiliary outputs of segmentation, and the network's own loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from luigi_prune.compute.network_inputs import prediction
from luigi_prune.errors import ConfigError

_AUXILIARY_SHARE = 0.5


class CrossEntropyLossWithAuxiliary(nn.CrossEntropyLoss):
    """Cross entropy of the prediction and, if the network also returns `aux`, half of that of `aux`.

    Without gradients, so in validation and tests, it is that of the prediction alone.
    """

    def forward(self, outputs: Any, targets: Tensor) -> Tensor:
        """Return the loss of outputs (batch, classes, ...) or {out, aux} of them, and class numbers (batch, ...)."""
        value = super().forward(prediction(outputs), targets)
        auxiliary = outputs.get("aux") if isinstance(outputs, Mapping) else None
        if auxiliary is None or not torch.is_grad_enabled():
            return value
        return value + _AUXILIARY_SHARE * super().forward(auxiliary, targets)


class LossFromInput(nn.Module):
    """The mean loss that networks of transformers compute if their inputs contain `labels`.

    Without labels among the inputs it is computed from the logits as these networks do: the cross entropy of class
    numbers, or the squared error of a single output and a real number.
    """

    def __init__(self, reduction: str = "mean"):
        super().__init__()
        if reduction != "mean":
            raise ValueError(f"reduction {reduction!r} is not the one with which networks compute their loss: mean")
        self.reduction = reduction

    def forward(self, outputs: Any, targets: Tensor) -> Tensor:
        """Return the loss of a network's output, whose `loss` or `logits` it reads, and targets (batch,)."""
        own = outputs.get("loss") if isinstance(outputs, Mapping) else getattr(outputs, "loss", None)
        if isinstance(own, Tensor):
            return own.mean()
        logits = prediction(outputs)
        if logits.shape[-1] == 1:
            return functional.mse_loss(logits.squeeze(-1), targets.to(logits.dtype))
        if targets.is_floating_point():
            raise ConfigError(
                f"training.loss: LossFromInput: {logits.shape[-1]} outputs do not fit targets that are real numbers"
            )
        return functional.cross_entropy(logits, targets)
