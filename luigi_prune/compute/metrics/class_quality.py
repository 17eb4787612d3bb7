"""How a classifier does per class, and how far its confidence is off: beside any metrics, from the same outputs."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

# Bins of the expected calibration error, as in Guo et al. 2017 (arXiv 1706.04599).
BINS = 15


class ClassQuality:
    """Running counts per class and per bin of confidence.

    Outputs are scores or log-probabilities (batch, classes), targets one class per sample; of anything else nothing is
    counted. Samples whose target is no class do not count, as in the loss; of outputs that are not finite the
    confidence does not count.
    """

    def __init__(self) -> None:
        self._right = self._total = self._bins = torch.zeros(0)
        self._is_classification = True
        self._guesses: list[Tensor] = []

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        """Add a batch."""
        if not (isinstance(outputs, Tensor) and isinstance(targets, Tensor) and self._fits(outputs, targets)):
            self._is_classification = False
            return
        classes = outputs.shape[1]
        if not len(self._total):
            self._right = torch.zeros(classes, dtype=torch.int64)
            self._total = torch.zeros(classes, dtype=torch.int64)
            self._bins = torch.zeros(3, BINS, dtype=torch.float64)  # samples, those right, sum of confidences
        is_class = (targets >= 0) & (targets < classes)
        outputs, targets = outputs[is_class], targets[is_class]
        confidence, guess = outputs.double().softmax(dim=1).max(dim=1)
        right = guess == targets
        # Counted on the CPU: on a GPU `bincount` has no deterministic form.
        targets, right, confidence = targets.cpu(), right.cpu(), confidence.cpu()
        self._guesses.append(guess.to(torch.int32).cpu())
        self._total += torch.bincount(targets, minlength=classes)
        self._right += torch.bincount(targets[right], minlength=classes)
        right, confidence = right[finite := confidence.isfinite()], confidence[finite]
        place = (confidence * BINS).long().clamp(max=BINS - 1)
        for row, weights in enumerate((torch.ones_like(confidence), right.double(), confidence)):
            self._bins[row] += torch.bincount(place, weights=weights, minlength=BINS)

    def _fits(self, outputs: Tensor, targets: Tensor) -> bool:
        return (
            self._is_classification
            and outputs.ndim == 2
            and outputs.shape[1] > 1
            and outputs.is_floating_point()
            and targets.ndim == 1
            and not targets.is_floating_point()
            and targets.dtype != torch.bool
            and self._total.numel() in (0, outputs.shape[1])
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """Return `classes/right` and `classes/total` (samples per class), `calibration_error`; {} if no classifier.

        `classes/guess` is the class that each sample is taken for, in the order of the test set. The expected
        calibration error is the mean distance of confidence and share right over bins, by their samples; NaN if no
        output is finite.
        """
        if not self._is_classification or not int(self._total.sum()):
            return {}
        count, right, confidence = self._bins.numpy()
        samples = count.sum()
        smallest = np.min_scalar_type(len(self._total) - 1)
        return {
            "classes/right": self._right.numpy(),
            "classes/total": self._total.numpy(),
            "classes/guess": torch.cat(self._guesses).numpy().astype(smallest),
            "calibration_error": np.asarray(np.abs(confidence - right).sum() / samples if samples else np.nan),
        }
