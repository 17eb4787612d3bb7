"""Who leads: on simulated experiments whose best method is known, and case by case."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from benchmarks.verdict import META, SCENARIOS, Scenario, shares
from luigi_prune.analysis.verdict import DECISION_LEVELS, Verdict, decision_level, pairwise, verdict

RATIOS = (0.5, 0.25, 0.125, 0.0625, 0.03125)
IMAGES = 1000


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_a_wrong_leader_is_named_in_at_most_5_of_100_experiments(scenario: Scenario) -> None:
    found = shares(scenario, 60)
    assert found["after"][1] <= 0.05
    assert found["after"][1] < found["before"][1] or scenario is SCENARIOS[0]


def test_a_method_that_is_far_ahead_is_named() -> None:
    assert shares(replace(SCENARIOS[0], nets=5), 40)["after"][0] >= 0.7


def experiment(reached: dict[str, list[int]], images: int = IMAGES) -> dict[str, np.ndarray]:
    """Return tables where method -> per net, that many of the first ratios stay within 0.4 points, the rest lose 20."""
    nets = len(next(iter(reached.values())))
    shape = (nets, len(RATIOS), 1, len(reached) + 1)
    right = np.full(shape, 0.9 * images)
    for at, counts in enumerate(reached.values(), 1):
        for net, count in enumerate(counts):
            right[net, :, 0, at] = 0.9 * images - np.where(np.arange(len(RATIOS)) < count, 0.004, 0.2) * images
    size = np.broadcast_to(np.asarray(RATIOS)[:, None, None], shape).copy()
    size[..., 0] = 1.0
    share = np.rint(right) / images
    return {
        "axes/net": np.arange(nets), "axes/keep_ratio": np.asarray(RATIOS), "axes/repetition": np.arange(1),
        "axes/method": np.asarray(["ReferenceNet", *reached]), "axes/metric": np.asarray(["TopK1"]),
        "axes/test_set": np.asarray(["Test"]), "method/nominal": np.arange(shape[-1]) == 0,
        "ratio/nominal": np.asarray(RATIOS), "cost/size": size, "cost/flops": size.copy(),
        "samples/validation": np.full(nets, float(images)), "validation/TopK1": share, "test/Test/TopK1": share.copy(),
        "test/Test/loss": 1 - share,
    }  # fmt: skip


def judge(arrays: dict[str, np.ndarray], **meta: Any) -> Verdict:
    found = verdict(arrays, {**META, **meta}, "Test", "TopK1")
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("reached", "leader"),
    [
        ({"A": [4, 4, 4, 4, 4], "B": [2, 2, 1, 2, 2]}, "A"),
        ({"A": [2, 2, 1, 2, 2], "B": [4, 4, 4, 4, 4]}, "B"),
        ({"A": [2, 2, 1, 2, 2], "B": [4, 4, 4, 4, 4], "C": [3, 4, 3, 4, 4]}, None),  # not clearly better than C
        ({"A": [4, 1, 4, 1, 4], "B": [2, 2, 2, 2, 2]}, None),
        ({"A": [2, 2, 2, 2, 2], "B": [2, 2, 2, 2, 2]}, None),  # equal on the grid
        ({"A": [5, 5, 5, 5, 5], "B": [5, 5, 5, 5, 5]}, None),  # both beyond the grid
        ({"A": [1, 1, 1, 1, 1], "B": [0, 0, 0, 0, 0]}, None),  # between no ratio and the first lies one step
        ({"A": [0, 0, 0], "B": [0, 0, 0]}, None),
        ({"A": [4], "B": [1]}, None),  # a single net shows nothing
        ({"A": [4, 4, 4, 4, 4]}, None),
    ],
)
def test_a_leader_is_ahead_of_all_others_in_pairs(reached: dict[str, list[int]], leader: str | None) -> None:
    found = judge(experiment(reached))
    names = ["ReferenceNet", *reached]
    assert (None if found.leader is None else names[found.leader]) == leader
    assert found.tied == ((found.leader,) if leader else found.tied)
    assert found.order[0] in found.tied


def test_the_order_of_the_settings_does_not_matter() -> None:
    one = judge(experiment({"A": [4, 3, 4, 4, 4], "B": [2, 2, 1, 2, 2], "C": [2, 1, 2, 2, 2]}))
    other = judge(experiment({"C": [2, 1, 2, 2, 2], "B": [2, 2, 1, 2, 2], "A": [4, 3, 4, 4, 4]}))
    assert one.leader == 1
    assert other.leader == 3
    assert one.lead == other.lead
    assert one.lead is not None
    assert one.lead_factor is not None
    assert one.lead_factor[0] == pytest.approx(2**one.lead.mean)


def test_compressions_carry_their_bounds() -> None:
    found = judge(experiment({"A": [5, 4, 5], "B": [0, 2, 2], "C": [0, 5, 0], "D": [0, 0, 0], "E": [2, 2, 2]}))
    compression = {"ABCDE"[at - 1]: value for at, value in found.compression.items()}
    assert {name: value.sign for name, value in compression.items()} == {
        "A": "≥", "B": "<", "C": "≈", "D": "<", "E": "",
    }  # fmt: skip
    assert {name: value.reached for name, value in compression.items()} == {"A": 3, "B": 2, "C": 1, "D": 0, "E": 3}
    assert compression["B"].value == pytest.approx((2 * 4 * 4) ** (1 / 3))
    assert compression["D"].value == pytest.approx(2)
    assert compression["A"].low > 1
    assert np.isinf(compression["A"].high)  # beyond the grid
    assert compression["B"].low == compression["D"].low == 1.0
    assert compression["E"].low == compression["E"].high == pytest.approx(4)
    assert all(value.of == 3 for value in compression.values())
    assert any("A" in reason and "smallest keep ratio" in reason for reason in found.reasons)


def test_a_filter_more_or_less_is_no_merit() -> None:
    arrays = experiment({"A": [3] * 5, "B": [3] * 5})
    arrays["cost/size"][..., 1] *= 0.98
    found = judge(arrays)
    assert found.lead is not None
    assert (found.leader, found.lead.mean) == (None, 0.0)
    assert found.order[0] == 1


@pytest.mark.parametrize(
    ("samples", "level"), [(143, 0.02), (360, 0.01), (400, 0.005), (5000, 0.005), (20, 0.1), (19, None), (None, 0.005)]
)
def test_the_level_is_two_samples_or_more(samples: int | None, level: float | None) -> None:
    assert decision_level(samples) == level


def test_of_methods_that_tie_the_one_that_reaches_the_level_more_often_comes_first() -> None:
    arrays = experiment({"A": [0, 0, 0], "B": [1, 0, 1]})
    arrays["cost/size"][..., 1] *= 0.98  # a filter less
    assert judge(arrays).order == (2, 1)


def test_too_few_samples_name_nobody() -> None:
    arrays = experiment({"A": [4] * 5, "B": [1] * 5}, images=10)
    found = judge(arrays)
    assert (found.leader, found.tied, found.fit_to_decide) == (None, (1, 2), False)


def test_what_speaks_against_deciding_is_listed() -> None:
    sound = judge(experiment({"A": [4, 4, 3, 4, 4], "B": [2, 2, 1, 2, 2]}))
    assert sound.fit_to_decide, sound.reasons
    assert (sound.samples, sound.level, sound.nets, sound.results, sound.expected) == (IMAGES, 0.005, 5, 50, 50)
    arrays = experiment({"A": [4, 4, 3], "B": [2, 2, 1]})
    arrays["test/Test/TopK1"][0, 0, 0, 1] = np.nan
    arrays["validation/TopK1"][...] = np.nan
    poor = judge(arrays, missing={"Test": 1}, dataset_train="Synthetic_Digits")
    assert poor.chosen_on == "test"
    assert poor.results == poor.expected - 1
    for words in ("random", "missing: 1", "3 of 5", "on the test set"):
        assert any(words in reason for reason in poor.reasons), words


def test_the_levels_at_which_another_method_is_first_are_told() -> None:
    arrays = experiment({"A": [4] * 5, "B": [2] * 5})
    arrays["validation/TopK1"][:, :, 0, 2] = 0.9 - 0.015  # B is within 2 points everywhere, within 1 point nowhere
    found = judge(arrays)
    assert found.leader == 1
    assert [change.level for change in found.changes] == [level for level in DECISION_LEVELS if level >= 0.02]
    assert {change.order[0] for change in found.changes} == {2}


def test_no_method_that_prunes_no_verdict() -> None:
    arrays = experiment({"A": [4] * 3})
    arrays["method/nominal"][:] = True
    assert verdict(arrays, META, "Test", "TopK1") is None


def test_pairs_are_compared_within_nets() -> None:
    rng = np.random.default_rng(0)
    arrays = experiment({"A": [5] * 8, "B": [5] * 8, "C": [5] * 8})
    per_net = rng.normal(0, 0.05, (8, 1, 1, 1))
    arrays["test/Test/TopK1"] = 0.8 + per_net + rng.normal(0, 0.001, (8, len(RATIOS), 1, 4))
    arrays["test/Test/TopK1"][..., 2] -= 0.01
    found = pairwise(arrays, "Test", "TopK1", 8.0)
    place = {method: at for at, method in enumerate(found.methods)}
    a, b, c = place[1], place[2], place[3]
    assert found.better[a, b] == found.better[c, b] == 1
    assert found.better[b, a] == -1
    assert found.better[a, c] == 0
    assert found.p[a, b] == pytest.approx(2 / 2**8)
    assert found.adjusted[a, b] == pytest.approx(3 * 2 / 2**8)
    np.testing.assert_allclose(found.difference, -found.difference.T)
    np.testing.assert_allclose(found.low, -found.high.T)
    assert not found.indicative
    assert pairwise(arrays, "Test", "TopK1", 8.0, lower=True).better[a, b] == -1
    assert np.isnan(pairwise(arrays, "Test", "TopK1", 64.0).difference).all()  # nobody is that small
    few = {name: values[:3] if len(values) == 8 else values for name, values in arrays.items()}
    assert pairwise(few, "Test", "TopK1", 8.0).indicative
