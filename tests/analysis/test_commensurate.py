"""Commensurate levels: torchprune's numbers where results are whole, holes that never win, an honest choice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from luigi_prune.analysis.aggregate import aggregate_results
from luigi_prune.analysis.commensurate import LEVELS, choose, commensurate_points, has_validation, take
from tests.synthetic import make_grid, read

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "commensurate.json").read_text())
CASES = {case["kind"]: case for case in GOLDEN["cases"]}
# What torchprune puts where no ratio reaches a level; we leave NaN there.
UNREACHED = {"error": np.inf, "loss": np.inf, "sizes": 1.0, "flops": 1.0}
OUTPUTS = {"error": "e_best", "loss": "lo_best", "sizes": "siz_best", "flops": "flo_best"}


@pytest.mark.parametrize("kind", ["base", "ties", "incomplete"])
def test_equals_torchprune(kind: str) -> None:
    case = CASES[kind]
    inputs = {name: np.asarray(values, dtype=float) for name, values in case["input"].items()}
    assert tuple(case["levels"]) == LEVELS
    points = commensurate_points(inputs["error"], inputs["sizes"])
    for name, output in OUTPUTS.items():
        chosen = take(inputs[name], points)
        chosen = np.where(points < 0, UNREACHED[name], chosen)
        np.testing.assert_array_equal(chosen, np.asarray(case["output"][output], dtype=float))


def test_missing_results_never_win() -> None:
    inputs = {name: np.asarray(values, dtype=float) for name, values in CASES["incomplete"]["input"].items()}
    holes = inputs["error"] == 0.0
    assert holes.any()
    zeros_won = take(inputs["sizes"], commensurate_points(inputs["error"], inputs["sizes"])) == 0.0
    assert zeros_won.any()  # torchprune's fault: a result that was never computed has size 0 and error 0
    for name in inputs:
        inputs[name] = np.where(holes, np.nan, inputs[name])
    chosen = take(inputs["sizes"], commensurate_points(inputs["error"], inputs["sizes"]))
    assert np.nanmin(chosen) > 0.0


def test_a_run_without_its_reference_reaches_nothing() -> None:
    error = np.full((1, 2, 1, 2), 0.1)
    error[..., 0] = np.nan
    assert (commensurate_points(error, np.full(error.shape, 0.5)) == -1).all()


def test_the_choice_on_validation_does_not_look_at_the_test_set() -> None:
    tables = aggregate_results(make_grid(), read)
    honest = choose(tables.arrays, "Digits", "validation")
    worse = tables.arrays["test/Digits/TopK1"].copy()
    worse[:, 1::2, :, 1:] -= 0.3
    arrays = {**tables.arrays, "test/Digits/TopK1": worse}
    again = choose(arrays, "Digits", "validation")
    np.testing.assert_array_equal(honest.points, again.points)
    other = choose(arrays, "Digits", "test")
    assert (other.points != choose(tables.arrays, "Digits", "test").points).any()
    at = honest.at(0.01)
    net, repetition, method = np.argwhere(honest.points[at] >= 0)[-1]
    ratio = honest.points[at, net, repetition, method]
    assert (
        honest.metrics["TopK1"][at, net, repetition, method]
        == tables.arrays["test/Digits/TopK1"][net, ratio, repetition, method]
    )


def test_reached_total_and_pruned() -> None:
    grid = make_grid(nets=2, repetitions=1)
    for ratio in range(5):
        grid["cells"]["Digits"][1][ratio][0][3] = None
    chosen = choose(aggregate_results(grid, read).arrays, "Digits")
    assert chosen.total.tolist() == [2, 2, 2, 1]
    worst = chosen.at(-0.1)
    assert chosen.reached[worst].tolist() == [0, 0, 0, 0]
    assert chosen.pruned[worst, 0, 0, 3] == 0.0
    assert np.isnan(chosen.pruned[worst, 1, 0, 3])
    best = chosen.at(0.1)
    assert (chosen.pruned[best, :, :, 1] == 1.0 - chosen.size[best, :, :, 1]).all()


def test_without_curves_there_is_no_validation() -> None:
    arrays = aggregate_results(make_grid(), read).arrays
    assert has_validation(arrays)
    assert not has_validation({**arrays, "validation/TopK1": np.full_like(arrays["validation/TopK1"], np.nan)})
