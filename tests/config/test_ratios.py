"""Keep ratios against those of torchprune, and what holds for all of them."""

import json
import math
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luigi_prune.config.ratios import check_order, keep_ratios, spacing_notes, split_ratios
from luigi_prune.config.schema import SpacingConfig
from luigi_prune.errors import ConfigError

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "spacing.json").read_text())
SPACINGS = [case for case in GOLDEN["spacing"] if len(set(case["keep_ratios"])) == len(case["keep_ratios"])]


def spacing(**settings):
    return SpacingConfig(**settings)


def describe(case):
    config = case["config"]
    return "-".join(str(value) for value in config.values())


@pytest.mark.parametrize("case", SPACINGS, ids=describe)
def test_series_equals_the_reference(case):
    assert keep_ratios([spacing(**case["config"])]) == pytest.approx(case["keep_ratios"], rel=1e-11)


@pytest.mark.parametrize("case", GOLDEN["spacing"], ids=describe)
def test_split_equals_the_reference(case):
    ratios = case["keep_ratios"]
    for split in case["split"]:
        iterations, mode = split["retrainIterations"], split["mode"]
        if "error" in split:
            with pytest.raises(ConfigError, match="at most 1, the number"):
                split_ratios(ratios, iterations, mode)
        elif len(set(ratios)) == len(ratios):  # the reference merges equal ratios, which we refuse
            assert split_ratios(ratios, iterations, mode) == [
                (r, tuple(before)) for r, before in split["compressRatios"]
            ]


def test_concatenation_and_its_splits_equal_the_reference():
    for case in GOLDEN["combined"]:
        ratios = keep_ratios([spacing(**config) for config in case["configs"]])
        assert ratios == pytest.approx(case["keep_ratios"], rel=1e-11)
        seen = set()
        for split in case["split"]:
            if "error" not in split:
                result = split_ratios(ratios, split["retrainIterations"], split["mode"])
                assert result == [(r, tuple(before)) for r, before in split["compressRatios"]]
                seen.add(split["mode"])
        assert seen == {"retrain", "cascade", "cascade-rewind"}


@pytest.mark.parametrize("kind", ["geometric", "linear", "harmonic2"])
def test_a_single_ratio_is_the_largest(kind):
    assert keep_ratios([spacing(type=kind, numIntervals=1, maxVal=0.8, minVal=0.05)]) == [0.8]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"type": "cubic", "num_intervals": 1, "max_val": 0.8, "min_val": 0.05}, "at least two"),
        ({"type": "manual", "values": [0.5, 0.25, 0.5]}, "0.5 appears twice"),
        ({"type": "manual", "values": [0.5, 1.5]}, "at most 1, got 1.5"),
        ({"type": "manual", "values": [0.0]}, "above 0"),
        ({"type": "manual", "values": []}, "at least one value"),
        ({"type": "manual"}, "needs 'values'"),
        ({"type": "linear", "num_intervals": 3, "max_val": 0.8}, "needs 'minVal'"),
        (
            {"type": "linear", "num_intervals": 2.5, "max_val": 0.8, "min_val": 0.1},
            "an integer number of ratios, got 2.5",
        ),
        ({"type": "linear", "num_intervals": 3, "max_val": 0.1, "min_val": 0.8}, "minVal 0.8 is above maxVal 0.1"),
        ({"type": "linear", "num_intervals": 3, "max_val": 0.5, "min_val": 0.5}, "twice"),
        ({"type": "geometric", "num_intervals": 3, "max_val": 0.5, "min_val": 0}, "above 0"),
        ({"type": "geometric", "num_intervals": 1e6, "max_val": 0.5, "min_val": 0.1}, "at most 10000 ratios"),
        ({"type": "harmonic", "num_intervals": 40, "min_val": 0.001}, "more than 10000"),
    ],
)
def test_what_cannot_be_is_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        keep_ratios([spacing(**settings)])


def test_equal_ratios_of_two_spacings_are_refused():
    first = spacing(type="manual", values=[0.8, 0.4])
    second = spacing(type="geometric", numIntervals=2, maxVal=0.4, minVal=0.2)
    with pytest.raises(ConfigError, match=r"spacing\[1\]: the keep ratio 0.4 appears twice"):
        keep_ratios([first, second])


def test_harmonic_says_what_it_does_not_read_and_where_it_ends():
    texts = [text for _, text in spacing_notes([spacing(type="harmonic", numIntervals=5, maxVal=0.9, minVal=0.1)])]
    assert len(texts) == 2
    assert "does not use 'maxVal'" in texts[0]
    assert "below minVal 0.1" in texts[1]
    assert spacing_notes([spacing(type="harmonic", numIntervals=3, minVal=0.05)]) == []


def test_a_cascade_must_fall():
    check_order([0.5, 0.25, 0.1], "cascade")
    check_order([0.1, 0.5], "retrain")
    for mode in ("cascade", "cascade-rewind"):
        with pytest.raises(ConfigError, match=r"0\.3 follows 0\.25"):
            check_order([0.5, 0.25, 0.3], mode)


def test_nothing_is_pruned_in_mode_train():
    assert split_ratios([0.5, 0.2], -1, "train") == []


series = st.builds(
    lambda kind, count, low, width: SpacingConfig(
        type=kind, num_intervals=count, min_val=low, max_val=min(1.0, low + width)
    ),
    st.sampled_from(["geometric", "linear", "harmonic2", "cubic"]),
    st.integers(2, 60),
    st.floats(0.01, 0.9),
    st.floats(0.01, 0.5),
)


@given(series)
def test_series_falls_from_max_to_min(config):
    ratios = keep_ratios([config])
    assert len(ratios) == config.num_intervals
    assert ratios[0] == pytest.approx(config.max_val, rel=1e-11)
    assert ratios[-1] == pytest.approx(config.min_val, rel=1e-11)
    assert all(after < before for before, after in pairwise(ratios))
    assert all(float(f"{ratio:.12g}") == ratio for ratio in ratios)


@given(st.floats(0.5, 6), st.floats(0.1, 0.95))
def test_harmonic_ends_with_the_first_ratio_not_above_min(intervals, low):
    ratios = keep_ratios([SpacingConfig(type="harmonic", num_intervals=intervals, min_val=low)])
    assert ratios[-1] <= low * (1 + 1e-9) or math.isclose(ratios[-1], low, rel_tol=1e-9)
    assert all(ratio > low for ratio in ratios[:-1])


@given(
    st.lists(st.integers(1, 1000), min_size=1, max_size=40, unique=True),
    st.data(),
    st.sampled_from(["retrain", "cascade", "cascade-rewind"]),
)
def test_split_uses_every_ratio_once(numbers, data, mode):
    ratios = sorted((number / 1000 for number in numbers), reverse=True)
    iterations = data.draw(st.integers(-1, len(ratios)))
    steps = split_ratios(ratios, iterations, mode)
    assert len(steps) == (iterations if iterations > 0 else len(ratios))
    assert steps[-1][0] == ratios[-1]
    if mode == "retrain":
        pruned = list(steps[-1][1])
        for (_, before), (_, after) in pairwise(steps):
            assert after[: len(before)] == before
    else:
        pruned = [ratio for _, before in steps for ratio in before]
    assert sorted([*pruned, *(retrained for retrained, _ in steps)], reverse=True) == ratios
