"""Intervals cover, tests keep their level: on draws whose truth is known. The whole is benchmarks/verdict.py."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.verdict import coverage, false_alarms
from luigi_prune.analysis.inference import bootstrap_interval, holm, mean_interval, over_nets, sign_flip_p


@pytest.mark.parametrize("nets", [3, 5, 12])
def test_intervals_of_a_mean_cover_95_in_100(nets: int) -> None:
    rng = np.random.default_rng(nets)
    covered = np.mean([found.low <= 0 <= found.high for found in map(mean_interval, rng.normal(size=(1500, nets)))])
    assert 0.935 <= covered <= 0.965  # 2.7 standard deviations of 1,500 draws


def test_on_a_grid_they_cover_at_least_that_and_equal_values_are_no_proof() -> None:
    draws = np.rint(np.random.default_rng(0).normal(size=(500, 3)))
    found = [mean_interval(row, least_std=1 / np.sqrt(6)) for row in draws]
    assert np.mean([interval.low <= 0 <= interval.high for interval in found]) >= 0.95
    assert mean_interval(np.ones(3)).low == 1.0
    assert mean_interval(np.ones(3), least_std=1 / np.sqrt(6)).low < 0


def test_the_bootstrap_covers_with_many_nets_only() -> None:
    few, many = coverage(4, 100, "normal")["BCa"], coverage(30, 100, "normal")["BCa"]
    assert few < 0.91 < many
    with_many = np.random.default_rng(1).normal(size=60)
    assert mean_interval(with_many) == bootstrap_interval(with_many)  # what is used from 50 on


def test_sign_flips_and_holm_keep_their_level() -> None:
    one, any_of_ten = false_alarms(7, 10, 150)
    assert one <= 0.09
    assert any_of_ten <= 0.09


def test_sign_flips_find_a_difference_and_cannot_with_five_nets() -> None:
    assert sign_flip_p(np.array([0.1, 0.2, 0.3, 0.15, 0.22, 0.31])) == pytest.approx(2 / 64)
    assert sign_flip_p(np.array([0.1, 0.2, 0.3, 0.15, 0.22])) == pytest.approx(2 / 32)
    assert sign_flip_p(np.zeros(6)) == 1.0
    assert np.isnan(sign_flip_p(np.array([0.1])))


def test_holm_by_hand() -> None:
    p = np.array([0.04, np.nan, 0.01, 0.03])
    np.testing.assert_allclose(holm(p), [0.06, np.nan, 0.03, 0.06])
    assert holm(np.array([0.6, 0.9])).tolist() == [1.0, 1.0]


def test_repetitions_of_a_net_are_one_value() -> None:
    assert over_nets(np.array([[1.0, 3.0], [np.nan, 5.0], [np.nan, np.nan]])).tolist() == [2.0, 5.0]
