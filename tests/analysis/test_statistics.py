"""Means, sample deviations, confidence intervals over nets."""

from __future__ import annotations

import numpy as np
import pytest

from luigi_prune.analysis.statistics import by_run, first_known, spread

# t for a two-sided 95 % (and 99 %) interval, by degrees of freedom: NIST/SEMATECH e-Handbook 1.3.6.7.2.
T95 = {1: 12.706, 2: 4.303, 4: 2.776, 9: 2.262, 29: 2.045}
T99 = {1: 63.657, 2: 9.925, 4: 4.604, 9: 3.250, 29: 2.756}


@pytest.mark.parametrize(("confidence", "table"), [(0.95, T95), (0.99, T99)])
def test_the_interval_is_student_ts(confidence: float, table: dict[int, float]) -> None:
    for freedom, t in table.items():
        runs = np.arange(freedom + 1.0)[:, None]
        interval = spread(runs, confidence)
        half = t * runs.std(ddof=1) / np.sqrt(freedom + 1)
        assert interval.high - interval.mean == pytest.approx(half, rel=5e-4)  # tables have three decimals
        assert interval.mean - interval.low == pytest.approx(half, rel=5e-4)


def test_spread_over_nets_and_repetitions() -> None:
    values = np.array([[1.0, 2.0], [3.0, 6.0], [5.0, 4.0]])
    table = spread(values)
    assert table.mean == pytest.approx(values.mean())
    assert table.std == pytest.approx(values.std(ddof=1))
    assert (float(table.minimum), float(table.maximum), int(table.n)) == (1.0, 6.0, 6)
    per_net = np.array([1.5, 4.5, 4.5])
    half = 4.302652729911275 * per_net.std(ddof=1) / np.sqrt(3)  # Student's t for 95 %, 2 degrees of freedom
    assert table.low == pytest.approx(per_net.mean() - half)
    assert table.high == pytest.approx(per_net.mean() + half)
    assert int(table.n_independent) == 3
    assert table.indicative


def test_one_net_is_one_independent_run() -> None:
    table = spread(np.array([[1.0, 2.0, 4.0]]))
    assert int(table.n_independent) == 1
    half = 4.302652729911275 * np.std([1.0, 2.0, 4.0], ddof=1) / np.sqrt(3)
    assert table.high - table.low == pytest.approx(2 * half)


def test_missing_runs_are_left_out_and_one_run_has_no_deviation() -> None:
    values = np.array([[[1.0, np.nan]], [[np.nan, np.nan]], [[4.0, 7.0]]])
    table = spread(values)
    assert table.mean.tolist() == [2.5, 7.0]
    assert table.n.tolist() == [2, 1]
    assert np.isnan(table.std[1])
    assert np.isnan(table.low[1])
    nothing = spread(np.full((2, 2), np.nan))
    assert np.isnan([nothing.mean, nothing.std, nothing.minimum, nothing.maximum]).all()
    assert int(nothing.n) == int(nothing.n_independent) == 0


def test_five_nets_are_no_longer_indicative() -> None:
    assert not spread(np.arange(5.0)[:, None]).indicative


def test_axes_are_swapped_not_mixed() -> None:
    values = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    assert by_run(values).shape == (2, 4, 3, 5)
    assert by_run(values)[1, 3, 2, 4] == values[1, 2, 3, 4]


def test_first_known() -> None:
    values = np.array([[np.nan, 3.0], [1.0, 2.0], [np.nan, np.nan]])
    np.testing.assert_array_equal(first_known(values), [3.0, 1.0, np.nan])
