"""Excess error on shifted test sets."""

from __future__ import annotations

import numpy as np
import pytest

from luigi_prune.analysis.excess_error import excess_errors, nominal_test_set
from tests.analysis.test_verdict import RATIOS, experiment


def shifted(slope: float, noise: float = 0.0) -> dict[str, np.ndarray]:
    """Return tables whose second method loses `slope` per share pruned more on the set Noisy than on Test."""
    arrays = experiment({"A": [3] * 5, "B": [3] * 5})
    arrays["axes/test_set"] = np.asarray(["Test", "Noisy"])
    rng = np.random.default_rng(0)
    extra = np.zeros(arrays["cost/size"].shape)
    extra[..., 2] = slope * (1 - arrays["cost/size"][..., 2])
    per_net = rng.normal(0, 0.1, (5, 1, 1, 1))  # how hard the shifted set is for a net: no concern of pruning
    arrays["test/Noisy/TopK1"] = arrays["test/Test/TopK1"] - 0.2 + per_net - extra
    arrays["test/Noisy/TopK1"][..., 1:] += rng.normal(0, noise, (5, len(RATIOS), 1, 2)) if noise else 0.0
    return arrays


def test_the_slope_is_what_pruning_costs_more_on_the_shifted_set() -> None:
    first, second = excess_errors(shifted(0.05), "TopK1", "Test")
    assert (first.method, first.test_set, first.slope.mean) == (1, "Noisy", pytest.approx(0, abs=1e-12))
    assert second.slope.mean == pytest.approx(0.05)
    assert second.mean.mean == pytest.approx(0.05 * np.mean(1 - np.asarray(RATIOS)))
    noisy = excess_errors(shifted(0.05, noise=0.01), "TopK1", "Test")
    assert noisy[1].slope.low < 0.05 < noisy[1].slope.high
    assert not noisy[0].slope.excludes_zero
    line = noisy[1].line
    assert line.mean == pytest.approx(noisy[1].slope.mean)  # all nets have the same ratios
    assert noisy[1].slope.low < line.low < line.mean < line.high < noisy[1].slope.high  # with five nets
    assert len(noisy[1].share) == len(noisy[1].excess) == 5 * len(RATIOS)


def test_less_is_better_turns_the_sign_and_missing_results_do_not_count() -> None:
    arrays = shifted(-0.05)
    arrays["metric/lower_is_better"] = np.asarray([True])
    arrays["test/Noisy/TopK1"][0, 2, 0, 2] = np.nan
    assert excess_errors(arrays, "TopK1", "Test")[1].slope.mean == pytest.approx(0.05)
    arrays["test/Noisy/TopK1"][..., 2] = np.nan
    assert [found.method for found in excess_errors(arrays, "TopK1", "Test")] == [1]


def test_the_nominal_set_is_that_of_the_training_data() -> None:
    arrays = shifted(0.0)
    assert nominal_test_set(arrays, "Noisy") == "Noisy"
    assert nominal_test_set(arrays, "Other") == "Test"
    one = experiment({"A": [3] * 2})
    assert excess_errors(one, "TopK1", "Test") == []
