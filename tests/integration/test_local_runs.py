"""Whole runs with the local backend: the same arrays as inline, and two processes train what one trains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from luigi_prune.results.hdf5_file import read_result
from tests.experiments import command, contents, run, write_experiment

pytestmark = pytest.mark.slow
ONE_RATIO = [{"type": "manual", "values": [0.5]}]


def finish(file: Path, config: str = "", pictures: bool = False) -> str:
    process = command(file, backend="local", config=config, pictures=pictures)
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0, out
    return out


def test_local_and_inline_give_the_same_arrays(tmp_path):
    for backend in ("inline", "local"):
        (tmp_path / backend).mkdir()
    changes = {"experiments__methods": ["ThresNet", "UniNet", "FilterUniNet"], "experiments__mode": "cascade-rewind"}
    run(write_experiment(tmp_path / "inline", **changes))
    finish(write_experiment(tmp_path / "local", **changes), pictures=True)
    assert contents(tmp_path / "local" / "results") == contents(tmp_path / "inline" / "results")


def weights(folder: Path, pattern: str) -> dict[str, np.ndarray]:
    (path,) = (folder / "results").rglob(pattern)
    return read_result(path).group("weights")


def test_two_processes_train_and_retrain_the_weights_that_one_does(tmp_path):
    """A network without BatchNorm, SGD, a few epochs, batches that two processes cannot split evenly."""
    changes = {"training__numEpochs": 3, "training__batchSize": 31, "experiments__spacing": ONE_RATIO}
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    run(write_experiment(tmp_path / "one", **changes))
    config = "[compute.TrainBase]\nprocesses=2\n[compute.Retrain]\nprocesses=2\n"
    finish(write_experiment(tmp_path / "two", **changes), config)
    for pattern in ("TrainBase/*.h5", "keep0.5-retrain-*.h5"):
        one, two = weights(tmp_path / "one", pattern), weights(tmp_path / "two", pattern)
        assert list(one) == list(two)
        for name in one:
            np.testing.assert_allclose(two[name], one[name], rtol=0, atol=1e-5)
    (path,) = (tmp_path / "two" / "results").rglob("TrainBase/*.h5")
    assert read_result(path).provenance["processes"] == 2
