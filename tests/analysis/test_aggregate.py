"""Results land in their cells, each file is read once, holes stay holes."""

from __future__ import annotations

import json

import numpy as np
import pytest

from luigi_prune.analysis.aggregate import Aggregated, aggregate_results
from luigi_prune.errors import DamagedResult
from tests.synthetic import FLOPS, LAYERS, SIZE, FakeResult, make_grid, read


@pytest.fixture(scope="module")
def tables() -> Aggregated:
    return aggregate_results(make_grid(), read)


def test_every_value_is_in_its_cell(tables: Aggregated) -> None:
    grid = make_grid()
    for cell in [(0, 0, 0, 1), (2, 4, 1, 3), (1, 2, 0, 2)]:
        net, ratio, repetition, method = cell
        result = read(grid["cells"]["Digits"][net][ratio][repetition][method])
        assert tables.arrays["test/Digits/TopK1"][cell] == result.arrays["metrics/TopK1"]
        assert tables.arrays["test/Digits/loss"][cell] == result.arrays["loss"]
        assert tables.arrays["cost/size"][cell] == result.arrays["size"] / SIZE
        assert tables.arrays["cost/flops"][cell] == result.arrays["flops"] / FLOPS
        np.testing.assert_array_equal(tables.arrays["layers/kept"][cell], result.arrays["layers/kept"])
        assert tables.measured["evaluate_seconds"][cell] == result.measured["evaluate_seconds"]
    assert tables.arrays["axes/layer"].tolist() == list(LAYERS)
    assert tables.arrays["cost/size_total"].tolist() == [SIZE] * 3


def test_each_file_is_read_once() -> None:
    seen: list[str] = []

    def counting(path: str) -> FakeResult:
        seen.append(path)
        return read(path)

    aggregate_results(make_grid(), counting)
    assert len(seen) == len(set(seen)) == 3 * (5 * 2 * 3 + 1)


def test_curves_stand_at_their_absolute_epoch(tables: Aggregated) -> None:
    curve = tables.arrays["curves/validation/TopK1"][0, 0, 0]
    assert curve.shape == (4, 10)
    assert np.isnan(curve[1, :2]).all()
    assert np.isfinite(curve[1, 2:]).all()
    assert np.isfinite(curve[0]).all()


def test_the_validation_value_is_that_of_the_last_epoch(tables: Aggregated) -> None:
    curves = tables.arrays["curves/validation/TopK1"]
    np.testing.assert_array_equal(tables.arrays["validation/TopK1"], curves[..., -1])


def test_with_early_stopping_an_old_results_is_that_of_the_latest_best_epoch() -> None:
    def peaked(path: str) -> FakeResult:
        result = read(path)
        length = len(result.arrays["history/epoch"])
        metric, loss = np.zeros(length), np.arange(length, dtype=float)
        metric[[0, 3, 5]] = [0.9, 0.8, 0.8]  # epoch 0 is best of all, but before early stopping begins
        return FakeResult({**result.arrays, "history/validation/TopK1": metric, "history/validation_loss": loss}, {})

    tables = aggregate_results({**make_grid(), "early_stop_epochs": [2, 4]}, peaked)
    assert (tables.arrays["validation/TopK1"] == 0.8).all()
    assert (tables.arrays["validation/loss"] == 5.0).all()


def test_a_result_that_names_its_kept_epoch_is_believed() -> None:
    def kept(path: str) -> FakeResult:
        result = read(path)
        loss = result.arrays["history/epoch"].astype(float)
        return FakeResult({**result.arrays, "history/validation_loss": loss, "history/kept_epoch": np.int64(4)}, {})

    tables = aggregate_results({**make_grid(), "early_stop_epochs": [2, 4]}, kept)
    assert (tables.arrays["validation/loss"] == 4.0).all()
    assert "curves/kept_epoch" not in tables.arrays


def test_controls_have_nominal_cost_and_measured_quality() -> None:
    tables = aggregate_results(make_grid(methods=("ReferenceNet", "FakeNet", "ThresNet")), read)
    expected = tables.arrays["axes/keep_ratio"][None, :, None]
    for method in (0, 1):
        assert (tables.arrays["cost/size"][..., method] == expected).all()
        assert (tables.arrays["cost/flops"][..., method] == expected).all()
        assert (tables.arrays["ratio/achieved"][..., method] == 1.0).all()
    assert tables.arrays["method/nominal"].tolist() == [True, True, False]
    assert len(np.unique(tables.arrays["test/Digits/TopK1"][..., 1])) == 3 * 5 * 2
    assert len(np.unique(tables.arrays["test/Digits/TopK1"][..., 0])) == 3


def test_missing_results_stay_missing() -> None:
    grid = make_grid()
    grid["cells"]["Digits"][1][2][0][3] = None
    tables = aggregate_results(grid, read)
    hole = (1, 2, 0, 3)
    for name in ("test/Digits/TopK1", "test/Digits/loss", "cost/size", "validation/TopK1", "ratio/achieved"):
        assert np.isnan(tables.arrays[name][hole]), name
        assert np.isnan(tables.arrays[name]).sum() == 1, name
    assert np.isnan(tables.arrays["layers/kept"][hole]).all()
    assert tables.meta["missing"] == {"Digits": 1}
    assert tables.meta["partial"]
    json.dumps(tables.meta, allow_nan=False)


def test_a_metric_that_a_history_lacks_is_missing() -> None:
    tables = aggregate_results({**make_grid(), "metrics": ["TopK1", "IoU"]}, read)
    assert np.isnan(tables.arrays["test/Digits/IoU"]).all()
    assert np.isnan(tables.arrays["curves/train/IoU"]).all()
    assert np.isfinite(tables.arrays["test/Digits/TopK1"]).all()


def test_mode_train_has_one_ratio_and_the_reference_alone() -> None:
    tables = aggregate_results(make_grid(mode="train"), read)
    assert tables.arrays["axes/method"].tolist() == ["ReferenceNet"]
    assert tables.arrays["axes/keep_ratio"].tolist() == [1.0]
    assert tables.arrays["test/Digits/TopK1"].shape == (3, 1, 2, 1)
    assert (tables.arrays["cost/size"] == 1.0).all()
    assert not tables.meta["partial"]


@pytest.mark.parametrize("error", [FileNotFoundError("gone"), DamagedResult("there", "a byte flipped")])
def test_errors_of_reading_pass_through(error: Exception) -> None:
    def failing(path: str) -> FakeResult:
        raise error

    with pytest.raises(type(error)):
        aggregate_results(make_grid(), failing)


def test_results_with_other_layers_are_refused() -> None:
    def shrinking(path: str) -> FakeResult:
        result = read(path)
        kept = result.arrays["layers/kept"]
        return FakeResult({**result.arrays, "layers/kept": kept[:-1] if "UniNet" in path else kept}, {})

    with pytest.raises(ValueError, match="compressible layers"):
        aggregate_results(make_grid(), shrinking)
