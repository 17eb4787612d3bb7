"""One row per method, one denominator per row."""

from __future__ import annotations

import numpy as np
import pytest

from luigi_prune.analysis.leaderboard import area_under_curve, leaderboard
from tests.analysis.test_verdict import RATIOS, experiment, judge


def test_every_column_of_a_row_is_over_the_same_runs() -> None:
    arrays = experiment({"A": [4, 0, 4], "B": [2, 2, 2]})
    arrays["cost/flops"][...] = np.sqrt(arrays["cost/size"])
    row = next(row for row in leaderboard(arrays, {}, judge(arrays)) if row.method == 1)
    # The run that reaches nothing enters with its largest network: 2x, and a loss of 20 points.
    assert row.compression[0.005].value == pytest.approx((16 * 2 * 16) ** (1 / 3))
    assert row.flops.value == pytest.approx((4 * np.sqrt(2) * 4) ** (1 / 3))
    assert (row.flops.sign, row.flops.reached, row.flops.of) == ("<", 2, 3)
    assert row.change.mean == pytest.approx(-(0.004 + 0.2 + 0.004) / 3)
    assert row.change.n == 3


def shape_of(arrays: dict[str, np.ndarray]) -> tuple[int, ...]:
    return arrays["cost/size"].shape


def test_rows_follow_the_verdict_and_have_what_was_measured() -> None:
    arrays = experiment({"A": [2] * 5, "B": [4] * 5})
    measured = {"prune_seconds": np.full(arrays["cost/size"].shape, 3.0)}
    arrays["before/Test/TopK1"] = arrays["test/Test/TopK1"] - 0.1
    arrays["calibration_error/Test"] = np.where(arrays["method/nominal"], 0.1, 0.25) * np.ones(shape_of(arrays))
    arrays["class_accuracy/Test"] = np.full((*shape_of(arrays), 3), 0.9, dtype=np.float32)
    arrays["class_accuracy/Test"][:, 3, :, 2, 1] = 0.4  # class 1 at 16x, the ratio of B
    rows = leaderboard(arrays, measured, judge(arrays))
    assert rows[0].calibration_error is not None
    assert rows[0].calibration_error.mean == pytest.approx(0.15)
    assert rows[0].worst_class == (1, pytest.approx(-0.5))
    assert rows[1].worst_class == (0, 0.0)
    assert [row.method for row in rows] == [2, 1]
    assert [row.tied for row in rows] == [True, False]
    assert rows[0].prune_seconds == 3.0
    assert np.isnan(rows[0].retrain_seconds)
    assert rows[0].before is not None
    assert rows[0].before.mean == pytest.approx(-0.104)
    assert rows[0].change.mean == pytest.approx(-0.004)


def test_the_area_is_the_mean_change_up_to_a_compression_that_all_have() -> None:
    arrays = experiment({"A": [5] * 2, "B": [0] * 2})
    area = area_under_curve(arrays, "Test", "TopK1", (1, 2))
    steps = np.log2(1 / np.asarray(RATIOS))
    assert area[0, 0, 1] == pytest.approx(-0.004 * (0.5 * steps[0] + steps[-1] - steps[0]) / steps[-1])
    assert area[0, 0, 2] < area[0, 0, 1]
    assert np.isnan(area[..., 0]).all()
    arrays["test/Test/TopK1"][0, 3:, 0, 2] = np.nan  # then the area ends at 8x for both
    shorter = area_under_curve(arrays, "Test", "TopK1", (1, 2))
    assert shorter[0, 0, 1] == pytest.approx(-0.004 * 2.5 / 3)
