"""Losses of torch.nn and from outside, and their mean over unequal batches and processes."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from luigi_prune import registry
from luigi_prune.compute.memory import DEVICE_ERRORS
from luigi_prune.compute.named import resolve
from luigi_prune.compute.network_inputs import prediction
from luigi_prune.errors import ConfigError, reason_of

_HELD_VALUES = 1024
_TENSORS = ("weight", "pos_weight")
_BY_WEIGHT = ("CrossEntropyLoss", "CrossEntropyLossWithAuxiliary", "NLLLoss")
_SIGNED_TARGETS = ("HingeEmbeddingLoss", "SoftMarginLoss")  # their classes are -1 and 1


class Loss:
    """A loss of torch.nn, or a class or function from outside: a scalar tensor of (outputs, targets)."""

    def __init__(self, name: str, kwargs: Mapping[str, Any]):
        row = registry.find("loss", name)
        keywords = {
            key: torch.tensor(value, dtype=torch.get_default_dtype()) if key in _TENSORS else value
            for key, value in kwargs.items()
        }
        self._name, self._kwargs = row.name, dict(kwargs)
        self._foreign = row.name if registry.is_foreign(str(row.path)) else ""
        self._whole_output = bool(self._foreign) or row.whole_output
        self._density = row.density
        self._on_classes = row.targets == "class"
        self._signed = name in _SIGNED_TARGETS
        try:
            self._module: Any = _built(resolve(row.path), keywords)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"training.lossKwargs: {row.name} cannot be built with {dict(kwargs)}: {error}"
            ) from error
        self.reduction: str = getattr(self._module, "reduction", "mean")
        if self.reduction not in ("mean", "sum", "batchmean"):
            raise ConfigError(
                f"training.lossKwargs.reduction: {self.reduction!r} gives no single value; choose mean or sum"
            )
        # Only the mean of these does not divide by the number of samples.
        self._unequal = name in _BY_WEIGHT and bool({"weight", "ignore_index"} & set(kwargs))

    def __call__(self, outputs: Any, targets: Tensor) -> Tensor:
        """Return the scalar loss of a batch; losses of real numbers get class numbers as one-hot rows.

        `outputs`: what the network returns. A loss from outside, or whose row says so, gets it as it is, one of
        torch.nn its `prediction`.
        """
        if not self._whole_output:
            outputs = prediction(outputs)
        if isinstance(outputs, Tensor) and not self._density:
            targets = self._matching(outputs, targets)
        try:
            value: Tensor = self._module(outputs, targets)
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            if self._foreign or isinstance(error, DEVICE_ERRORS):
                raise
            raise ConfigError(self._failed(outputs, targets, error)) from error
        if self._foreign and not (isinstance(value, Tensor) and value.ndim == 0):
            got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
            raise ConfigError(f"training.loss: {self._foreign}: expected one number per batch, got {got}")
        return value

    def _failed(self, outputs: Any, targets: Tensor, error: Exception) -> str:
        shape = f"outputs of shape {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else "the network's outputs"
        return (
            f"training.loss: {self._name} with training.lossKwargs {self._kwargs} fails for {shape} and targets of "
            f"shape {tuple(targets.shape)}: {reason_of(error)}"
        )

    def _matching(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the targets in the form that the loss reads, of the outputs' shape if they are real numbers."""
        if not self._on_classes and not targets.is_floating_point():
            if targets.ndim == outputs.ndim - 1:
                targets = functional.one_hot(targets, outputs.shape[1])
            targets = targets.to(outputs.dtype)
            if self._signed:
                targets = 2 * targets - 1
        return _like(outputs, targets)

    def to(self, device: torch.device) -> Loss:
        """Move the loss's tensors, such as class weights, to `device` and return self."""
        if isinstance(self._module, nn.Module):
            self._module.to(device)
        return self

    def share(self, targets: Tensor) -> int | Tensor:
        """Return the weight of a batch in a mean over batches: its samples, or the sum of their class weights."""
        if not self._unequal or self.reduction == "sum":
            return len(targets)
        counted: Tensor = targets != getattr(self._module, "ignore_index", -100)
        weight: Tensor | None = getattr(self._module, "weight", None)
        if weight is None:
            return counted.sum()
        try:
            return weight[targets[counted]].sum()
        except IndexError as error:
            raise ConfigError(
                f"training.lossKwargs.weight: {len(weight)} numbers, but there is a class {int(targets.max())}"
            ) from error


def _built(loss: Any, keywords: dict[str, Any]) -> Any:
    """Return an instance of a class, or a function with its keywords bound."""
    return loss(**keywords) if isinstance(loss, type) else functools.partial(loss, **keywords)


def _like(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return float targets in the outputs' shape if only axes of length 1 differ: (batch,) for outputs (batch, 1).

    Raises ConfigError for other shapes, which torch would broadcast to a wrong loss.
    """
    if not targets.is_floating_point() or targets.shape == outputs.shape:
        return targets
    if targets.squeeze().shape != outputs.squeeze().shape:
        raise ConfigError(
            f"network.outputSize: outputs of shape {tuple(outputs.shape)} do not fit targets of shape "
            f"{tuple(targets.shape)}"
        )
    return targets.reshape(outputs.shape)


class MeanLoss:
    """The mean loss over batches, summed one by one in double precision; values are read from the device in groups."""

    def __init__(self, loss: Loss):
        self._sums_samples = loss.reduction == "sum"
        self.reset()

    def reset(self) -> None:
        """Clear the sums."""
        self._total, self._weight = 0.0, 0.0
        self._held: list[tuple[Tensor, int | Tensor]] = []

    def add(self, value: Tensor, share: int | Tensor) -> None:
        """Add a batch's scalar loss with weight `share`; a loss summed over samples is added unweighted."""
        self._held.append((value, share))
        if len(self._held) >= _HELD_VALUES:
            self._add_up()

    def sums(self) -> tuple[float, float]:
        """Return (total, weight), which may be summed over processes and restored by `set`."""
        self._add_up()
        return self._total, self._weight

    def set(self, total: float, weight: float) -> None:
        """Replace the sums."""
        self.reset()
        self._total, self._weight = total, weight

    def value(self) -> float:
        """Return the mean per sample; NaN before the first batch."""
        total, weight = self.sums()
        return total / weight if weight else float("nan")

    def _add_up(self) -> None:
        if not self._held:
            return
        values, shares = zip(*self._held, strict=True)
        numbers = torch.stack(values).tolist()
        weights = torch.stack(shares).tolist() if isinstance(shares[0], Tensor) else shares
        # One by one, so that the sum does not depend on when it is read.
        for number, weight in zip(numbers, weights, strict=True):
            self._total += number if self._sums_samples else number * weight
            self._weight += weight
        self._held = []
