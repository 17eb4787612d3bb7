"""Rows of `results.csv`."""

from __future__ import annotations

import numpy as np

from luigi_prune.analysis.aggregate import aggregate_results
from luigi_prune.report.result_rows import excess_rows, result_rows
from tests.synthetic import make_grid, read


def test_a_control_that_differs_per_step_has_a_row_per_step() -> None:
    tables = aggregate_results(make_grid(("ReferenceNet", "FakeNet"), nets=1, repetitions=1), read)
    arrays = tables.arrays
    header, *rows = result_rows(arrays, tables.measured)
    assert all(list(row) == list(header) for row in rows)
    assert [row["step"] for row in rows if row["method"] == "FakeNet"] == [1, 2, 3, 4, 5]
    assert {(row["keep_ratio"], row["size"]) for row in rows} == {("1.0", "1.0")}
    for name in ("test/Digits/TopK1", "test/Digits/loss"):  # in one-shot mode all ratios of a control are one network
        arrays[name][..., 1] = arrays[name][0, 0, 0, 1]
    assert [(row["method"], row["step"]) for row in list(result_rows(arrays, {}))[1:]] == [
        ("ReferenceNet", 0),
        ("FakeNet", 0),
    ]


def test_what_was_measured_has_a_column() -> None:
    tables = aggregate_results(make_grid(nets=1, repetitions=1), read)
    arrays = {**tables.arrays, "before/Digits/TopK1": np.full(tables.arrays["cost/size"].shape, 0.25)}
    rows = list(result_rows(arrays, tables.measured))[1:]
    assert {row["before_TopK1"] for row in rows} == {"0.25"}
    assert all(float(row["evaluate_seconds"]) > 0 for row in rows)


def test_excess_errors_have_a_row_per_method_metric_and_shifted_set() -> None:
    tables = aggregate_results(make_grid(test_sets=("Digits", "Digits_noisy"), nets=2, repetitions=1), read)
    rows = excess_rows(tables.arrays, tables.meta)
    assert len(rows) == 3 * 2
    assert {(row["test_set"], row["nominal"]) for row in rows} == {("Digits_noisy", "Digits")}
    assert all(float(row["slope_low"]) <= float(row["slope"]) <= float(row["slope_high"]) for row in rows)
