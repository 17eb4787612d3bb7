"""Losses and metrics of densities: the negative log-likelihood of samples under a flow.

They read one tensor (samples, 1 + features): a, then z, with log p(x) = log N(z; 0, I) - a, as flows return it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from luigi_prune.compute.distributed import Ranks
from luigi_prune.errors import ConfigError

_LOG_NORMAL = -0.5 * math.log(2 * math.pi)
_GREY_VALUES = 256


def log_likelihoods(outputs: Tensor) -> Tensor:
    """Return log p(x) in nats (samples,) of the outputs (samples, 1 + features) of a flow."""
    if outputs.dim() != 2 or outputs.shape[1] < 2:
        raise ConfigError(
            "training.loss: negative log-likelihoods read the output of a flow, (samples, 1 + features), got shape "
            f"{tuple(outputs.shape)}"
        )
    z = outputs[:, 1:].float()
    return (_LOG_NORMAL - 0.5 * z * z).sum(1) - outputs[:, 0].float()


def bits_per_dimension(outputs: Tensor) -> Tensor:
    """Return the bits per dimension (samples,) of images whose pixels are grey values divided by their number."""
    nats = log_likelihoods(outputs) / (outputs.shape[1] - 1)
    return -(nats - math.log(_GREY_VALUES)) / math.log(2)


class NLLPriorLoss:
    """The mean negative log-likelihood in nats per sample; targets are not read."""

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean over the batch."""
        return -log_likelihoods(outputs).mean()


class NLLNatsLoss(NLLPriorLoss):
    """The same, by the name that files for tables use."""


class NLLBitsLoss:
    """The mean number of bits per dimension; targets are not read."""

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean over the batch."""
        return bits_per_dimension(outputs).mean()


class MeanOfSamples:
    """The mean of a number per sample, summed in double precision."""

    def __init__(self, number: Callable[[Tensor], Tensor]):
        self._number = number
        self._sums: Tensor | None = None

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Add a batch."""
        sums = torch.stack([self._number(outputs).double().sum(), torch.tensor(float(len(outputs))).to(outputs.device)])
        self._sums = sums if self._sums is None else self._sums.to(sums) + sums

    def compute(self) -> float:
        """Return the mean; NaN before the first batch."""
        if self._sums is None:
            return float("nan")
        total, count = self._sums.tolist()
        return float(total / count) if count else float("nan")

    def reset(self) -> None:
        """Clear the sums."""
        self._sums = None

    def state(self) -> dict[str, Tensor]:
        """Return the sum and the number of samples."""
        return {} if self._sums is None else {"sums": self._sums}

    def load(self, state: dict[str, Tensor], device: torch.device) -> None:
        """Restore `state`."""
        self._sums = state["sums"].to(device) if state else None

    def pool(self, ranks: Ranks) -> None:
        """Replace the sums by those of all processes together."""
        if self._sums is not None:
            ranks.sum_([self._sums])


def NLLPrior() -> MeanOfSamples:
    """Return the mean log-likelihood in nats per sample: minus the loss, so that higher is better."""
    return MeanOfSamples(log_likelihoods)


def NLLNats() -> MeanOfSamples:
    """Return the same as `NLLPrior`, by the name that files for tables use."""
    return NLLPrior()


def NLLBits() -> MeanOfSamples:
    """Return minus the mean number of bits per dimension, so that higher is better."""
    return MeanOfSamples(lambda outputs: -bits_per_dimension(outputs))
