"""What an evaluation measures beside its metrics: quality before retraining, classes, numbers of samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from luigi_prune.results.hdf5_file import Result, read_result
from tests.experiments import run_to_tables, write_experiment


def found(folder: Path, pattern: str) -> list[Result]:
    return [read_result(path) for path in sorted((folder / "results").rglob(pattern))]


@pytest.mark.slow
def test_an_experiment_measures_its_networks_before_retraining(tmp_path: Path) -> None:
    file = write_experiment(tmp_path, experiments__mode="retrain", retraining={"startEpoch": 1})
    run_to_tables(file)
    (tables,) = found(tmp_path, "results.h5")
    before, after = tables.arrays["before/Digits/TopK1"], tables.arrays["test/Digits/TopK1"]
    assert np.isnan(before[..., 0]).all()  # the unpruned network was not retrained
    assert np.isfinite(before[..., 1]).all()
    assert before[0, 1, 0, 1] < after[0, 1, 0, 1]  # four fifths of the weights are gone: retraining helps
    assert tables.arrays["samples/test/Digits"].tolist() == [360]
    assert tables.arrays["samples/validation"].tolist() == [72]
    accuracy = tables.arrays["class_accuracy/Digits"]
    assert accuracy.shape == (*after.shape, 10)
    likeness = tables.arrays["agreement/Digits"]
    assert np.isnan(likeness[..., 0]).all()
    assert (likeness[..., 1] > 0.5).all()
    assert likeness[0, 1, 0, 1] < 1.0  # a network of a fifth of the weights errs on other samples, too
    evaluated = [r for r in found(tmp_path, "*.h5") if r.family == "Evaluate"]
    assert len(evaluated) == 3
    for result in evaluated:
        total, right = result.arrays["classes/total"], result.arrays["classes/right"]
        assert total.sum() == len(result.arrays["classes/guess"]) == 360
        assert right.sum() / 360 == pytest.approx(float(result.arrays["metrics/TopK1"]))

    # Without the pruned network, an evaluation measures the rest.
    for path in (tmp_path / "results").rglob("*.h5"):
        if read_result(path).family in ("Prune", "Evaluate", "Aggregate"):
            path.unlink()
    assert not any(title.startswith("Prune") for title in run_to_tables(file))
    (tables,) = found(tmp_path, "results.h5")
    assert not any(name.startswith("before/") for name in tables.arrays)
    np.testing.assert_array_equal(tables.arrays["test/Digits/TopK1"], after)
