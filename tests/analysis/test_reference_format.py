"""The tables under torchprune's names, as its analysis scripts read them."""

from __future__ import annotations

import io
import json

import numpy as np

from luigi_prune.analysis.aggregate import Aggregated, aggregate_results, reference_npz
from luigi_prune.analysis.commensurate import LEVELS
from tests.synthetic import LAYERS, make_grid, read

NAMES = set(
    """methods names time_tag layout dataset_train dataset_test error error5 loss sizes flops error_train error_test
error5_train error5_test loss_train loss_test samples_per_layer sizes_total flops_total stats_comm""".split()  # noqa: SIM905
)


def loaded(tables: Aggregated) -> dict[str, np.ndarray]:
    """Return the arrays after a way through a file."""
    file = io.BytesIO()
    labels = {"ThresNet": "WT", "ReferenceNet": "Dense"}
    np.savez(
        file,
        **reference_npz(
            tables.arrays, tables.meta, test_set="Digits", time_tag="k1", labels=labels, measured=tables.measured
        ),
    )
    file.seek(0)
    with np.load(file, allow_pickle=False) as archive:
        return dict(archive)


def test_names_shapes_and_meaning() -> None:
    tables = aggregate_results(make_grid(), read)
    data = loaded(tables)
    assert set(data) >= NAMES
    assert data["error"].shape == data["sizes"].shape == (3, 5, 2, 4)
    assert data["error_test"].shape == (3, 5, 2, 4, 10)
    assert data["samples_per_layer"].shape == (len(LAYERS), 3, 5, 1, 4)
    np.testing.assert_array_equal(data["error"], 1.0 - tables.arrays["test/Digits/TopK1"])
    np.testing.assert_array_equal(data["error5"], 1.0 - tables.arrays["test/Digits/TopK5"])
    np.testing.assert_array_equal(data["error_test"], 1.0 - tables.arrays["curves/validation/TopK1"])
    assert data["methods"].tolist() == ["ReferenceNet", "ThresNet", "FilterThresNet", "UniNet"]
    # Scripts look the reference up by this name, whatever a plot calls it.
    assert data["names"].tolist() == ["ReferenceNet", "WT", "FilterThresNet", "UniNet"]
    assert str(data["time_tag"]) == "k1"
    assert data["measured_evaluate_seconds"].shape == (3, 5, 2, 4)


def test_prune_ratio_per_layer_as_torchprune_computes_it() -> None:
    tables = aggregate_results(make_grid(), read)
    samples = loaded(tables)["samples_per_layer"]
    ratios = tables.arrays["axes/keep_ratio"][None, None, :, None, None]
    kept = ratios * samples / samples[..., :1]
    expected = np.moveaxis(tables.arrays["layers/kept"][:, :, :1] / tables.arrays["layers/total"], -1, 0)
    np.testing.assert_allclose(kept[..., 1:], expected[..., 1:])


def test_unknown_is_minus_one_or_nan() -> None:
    grid = make_grid(repetitions=1)
    grid["cells"]["Digits"][0][0][0][1] = None
    data = loaded(aggregate_results({**grid, "metrics": ["TopK1"]}, read))
    assert (data["samples_per_layer"][:, 0, 0, 0, 1] == -1).all()
    assert np.isnan(data["error"][0, 0, 0, 1])
    assert np.isnan(data["error5"]).all()
    assert data["error5_train"].shape == data["error_train"].shape


def test_the_first_repetition_that_has_layers_counts() -> None:
    grid = make_grid()
    grid["cells"]["Digits"][0][0][0][1] = None
    tables = aggregate_results(grid, read)
    samples = loaded(tables)["samples_per_layer"]
    np.testing.assert_array_equal(samples[:, 0, 0, 0, 1], tables.arrays["layers/kept"][0, 0, 1, 1])


def test_commensurate_levels_are_strict_json() -> None:
    def refuse(constant: str) -> float:
        raise AssertionError(constant)

    stats = json.loads(str(loaded(aggregate_results(make_grid(), read))["stats_comm"]), parse_constant=refuse)
    assert tuple(stats["commensurate"]) == LEVELS
    sizes = np.asarray(stats["siz_best"], dtype=float)
    assert sizes.shape == (13, 3, 2, 4)
    assert np.isnan(sizes[0, :, :, 1:]).all()
    assert np.isfinite(sizes[-1]).all()


def test_an_infinite_loss_is_null_in_json_and_infinite_in_the_array() -> None:
    tables = aggregate_results(make_grid(), read)
    tables.arrays["test/Digits/loss"][0] = np.inf
    data = loaded(tables)
    losses = json.loads(str(data["stats_comm"]))["lo_best"]
    assert np.isinf(data["stats_comm_lo_best"][:, 0]).any()
    assert not np.isfinite(np.asarray(losses, dtype=float)[:, 0]).any()
    assert np.isfinite(np.asarray(losses, dtype=float)[:, 1]).any()


def test_commensurate_levels_are_arrays_too() -> None:
    data = loaded(aggregate_results(make_grid(), read))
    stats = json.loads(str(data["stats_comm"]))
    assert {f"stats_comm_{name}" for name in stats} == {name for name in data if name.startswith("stats_comm_")}
    for name, values in stats.items():
        np.testing.assert_array_equal(data[f"stats_comm_{name}"], np.asarray(values, dtype=float))
