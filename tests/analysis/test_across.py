"""Methods over several experiments."""

from __future__ import annotations

import numpy as np
import pytest

from luigi_prune.analysis.across import MemberResult, across, critical_difference, varied_settings
from tests.analysis.test_verdict import experiment, judge


def member(name: str, reached: dict[str, list[int]]) -> MemberResult:
    return MemberResult(name, {"network.name": name}, judge(experiment(reached)), ("ReferenceNet", *reached), 0, 10)


def test_ranks_share_ties_and_come_best_first() -> None:
    found = across(
        [
            member("one", {"A": [1, 1], "B": [4, 4], "C": [2, 2]}),
            member("two", {"C": [3, 3], "B": [3, 3], "A": [1, 1], "D": [5, 5]}),
            MemberResult("empty", {}, None, (), 10, 10),
        ]
    )
    assert found.methods == ("B", "C", "A")
    assert found.members == ("one", "two")
    assert found.left_out == ("D",)
    assert found.ranks.tolist() == [[1, 2, 3], [1.5, 1.5, 3]]
    assert found.mean_rank.tolist() == [1.25, 1.75, 3]
    assert found.alike == (("B", "C", "A"),)  # two experiments show no difference of ranks


def test_many_experiments_tell_methods_apart() -> None:
    rng = np.random.default_rng(0)
    members = [
        member(str(at), {"A": [5, 5], "B": [4, 4], "C": rng.choice([2, 3], 2).tolist(), "D": [1, 1]})
        for at in range(12)
    ]
    found = across(members)
    assert found.methods == ("A", "B", "C", "D")
    assert found.p < 1e-3
    assert ("A", "B") in found.alike
    assert not any({"A", "D"} <= set(group) for group in found.alike)


def test_critical_difference_of_demsar() -> None:
    # q for 5 % in Demsar (2006), table 5: 1.960 for 2 methods, 2.343 for 3, 2.728 for 5, 3.164 for 10
    for methods, q in ((2, 1.960), (3, 2.343), (5, 2.728), (10, 3.164)):
        expected = q * np.sqrt(methods * (methods + 1) / (6 * 14))
        assert critical_difference(methods, 14) == pytest.approx(expected, rel=1e-3)
    assert np.isnan(critical_difference(3, 1))


def test_nothing_in_common_is_no_comparison() -> None:
    assert across([]).methods == ()
    found = across([member("one", {"A": [1, 1], "B": [2, 2]}), member("two", {"C": [1, 1], "D": [2, 2]})])
    assert found.methods == ()
    assert set(found.left_out) == {"A", "B", "C", "D"}


def test_the_axis_is_the_setting_that_varies() -> None:
    def settings(rate: float, retraining: float, name: str) -> dict:
        return {
            "name": name,
            "directories": {"results": name},
            "training": {"kwargs": {"lr": rate}, "epochs": 3},
            "retraining": {"kwargs": {"lr": retraining}, "epochs": 3},
        }

    assert varied_settings([settings(0.1, 0.1, "a"), settings(0.2, 0.2, "b")]) == [
        {"training.kwargs.lr": 0.1},
        {"training.kwargs.lr": 0.2},
    ]
    assert varied_settings([settings(0.1, 0.1, "a"), settings(0.1, 0.2, "b")]) == [
        {"retraining.kwargs.lr": 0.1},
        {"retraining.kwargs.lr": 0.2},
    ]
    assert varied_settings([settings(0.1, 0.1, "a")]) == [{}]
