"""Accuracy per class and calibration error."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from luigi_prune.compute.metrics.class_quality import BINS, ClassQuality


def test_counts_and_calibration_error_agree_with_torchmetrics() -> None:
    generator = torch.Generator().manual_seed(0)
    outputs, targets = 3 * torch.randn(500, 4, generator=generator), torch.randint(0, 3, (500,), generator=generator)
    quality = ClassQuality()
    for part in (slice(0, 200), slice(200, 500)):
        quality.add(outputs[part], targets[part])
    quality.add(outputs[:2], torch.tensor([-100, -100]))  # no class: not counted
    arrays = quality.arrays()
    guess = outputs.argmax(dim=1)
    assert arrays["classes/guess"].tolist() == guess.tolist()
    assert arrays["classes/guess"].dtype == np.uint8
    assert arrays["classes/total"].tolist() == torch.bincount(targets, minlength=4).tolist()
    assert arrays["classes/right"].sum() == int((guess == targets).sum())
    expected = multiclass_calibration_error(outputs.double().softmax(1), targets, 4, n_bins=BINS)
    assert float(arrays["calibration_error"]) == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize(
    ("outputs", "targets"),
    [
        (torch.zeros(3, 1), torch.zeros(3)),  # a regression
        (torch.zeros(3, 2), torch.zeros(3, 2)),
        (torch.zeros(3, 5, 4, 4), torch.zeros(3, 4, 4, dtype=torch.int64)),  # a class per pixel
        (torch.zeros(3, 5, dtype=torch.int64), torch.zeros(3, dtype=torch.int64)),
    ],
)
def test_of_anything_but_a_classifier_nothing_is_counted(outputs: torch.Tensor, targets: torch.Tensor) -> None:
    quality = ClassQuality()
    quality.add(outputs, targets)
    quality.add(torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64))
    assert quality.arrays() == {}


def test_perfect_confidence_is_calibrated() -> None:
    quality = ClassQuality()
    quality.add(torch.eye(3) * 100, torch.arange(3))
    np.testing.assert_allclose(quality.arrays()["calibration_error"], 0, atol=1e-9)


def test_outputs_that_are_not_finite_have_no_confidence() -> None:
    outputs, targets = torch.eye(3) * 100, torch.arange(3)
    outputs[1] = torch.nan
    quality = ClassQuality()
    quality.add(outputs, targets)
    arrays = quality.arrays()
    assert arrays["classes/total"].tolist() == [1, 1, 1]
    np.testing.assert_allclose(arrays["calibration_error"], 0, atol=1e-9)
    lost = ClassQuality()
    lost.add(torch.full((3, 3), torch.inf), targets)
    assert np.isnan(lost.arrays()["calibration_error"])
