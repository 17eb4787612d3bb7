"""Metrics of which less is better, and regressions: early stopping, levels, tables and sentences obey the direction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from luigi_prune.analysis.commensurate import choose, commensurate_points, error_of
from luigi_prune.compute.metrics.foreign_metrics import labels_lower_is_better
from luigi_prune.compute.metrics.metric_set import MetricSet
from luigi_prune.config.loader.experiment_files import load_experiments
from luigi_prune.config.schema import Component
from luigi_prune.errors import ConfigError
from luigi_prune.results.hdf5_file import read_result
from tests.experiments import run, write_experiment

PARTS = """
import numpy as np
from torch import nn

from luigi_prune.registry import DatasetRow, MetricRow


def waves(split, folder):
    x = np.random.default_rng(len(split)).uniform(-2, 2, (160, 1)).astype(np.float32)
    return x, np.sin(x[:, 0])


def small(input_shape, output_size):
    return nn.Sequential(nn.Linear(1, 20), nn.Tanh(), nn.Linear(20, output_size))


def squared(outputs, targets):
    assert outputs.shape == targets.shape
    return ((outputs - targets) ** 2).mean()


WAVES = DatasetRow("Waves", waves, input_shape=(1,))
ERROR = MetricRow("Error", squared, higher_is_better=False)
"""
SQUARED = "torchmetrics.regression:MeanSquaredError"


def regression(folder: Path, **changes: object) -> Path:
    (folder / "parts.py").write_text(PARTS)
    settings = {
        "network": {"name": "parts:small", "dataset": "parts:WAVES", "outputSize": 1},
        "training__loss": "MSELoss",
        "training__metricsTest": [{"type": SQUARED}, {"type": "parts:ERROR"}],
        "training__numEpochs": 4,
        "training__earlyStopEpoch": 1,
        "training__batchSize": 16,
        "experiments__mode": "retrain",
        "experiments__spacing": [{"type": "manual", "values": [0.8]}],
        **changes,
    }
    return write_experiment(folder, **settings)


@pytest.mark.slow
def test_a_regression_runs_to_its_report(tmp_path: Path) -> None:
    run(regression(tmp_path))
    (tables,) = (tmp_path / "results").rglob("results.h5")
    arrays = read_result(tables).arrays
    assert arrays["metric/lower_is_better"].tolist() == [True, True]
    error, ours, loss = (arrays[f"test/parts:WAVES/{name}"] for name in ("MeanSquaredError", "Error", "loss"))
    np.testing.assert_allclose(error, ours, rtol=1e-4)
    np.testing.assert_allclose(error, loss, rtol=1e-4)
    curve = arrays["curves/validation/MeanSquaredError"][0, 0, 0, 0]
    assert arrays["validation/MeanSquaredError"][0, 0, 0, 0] == curve[1:].min()
    (page,) = (tmp_path / "results").rglob("report.md")
    text = page.read_text()
    assert "| rise ≤ 0.5 |" in text
    assert "within 0.5 % of validation MeanSquaredError" in text
    assert "Lower is better" in text
    assert "MeanSquaredError (%)" not in text


def test_a_regression_needs_a_number_of_outputs_and_no_class_number(tmp_path: Path) -> None:
    without = {"name": "parts:small", "dataset": "parts:WAVES"}
    with pytest.raises(ConfigError, match=r"network\.outputSize: is missing"):
        load_experiments(regression(tmp_path, network=without))


def test_levels_of_such_a_metric_are_relative() -> None:
    judge = np.array([2.0, 2.02, 2.3, 1.0]).reshape(1, 4, 1, 1)  # at four ratios; the reference has 2.0
    judge = np.concatenate([np.full_like(judge, 2.0), judge], axis=3)
    sizes = np.array([0.9, 0.5, 0.2, 0.7]).reshape(1, 4, 1, 1) * np.ones((1, 1, 1, 2))
    points = commensurate_points(error_of(judge, lower=True), sizes, (-0.1, 0.0, 0.01, 0.2))[:, 0, 0, 1]
    assert points.tolist() == [3, 3, 1, 2]
    arrays = {
        "axes/metric": np.array(["Perplexity"]),
        "metric/lower_is_better": np.array([True]),
        **{f"test/Set/{name}": judge for name in ("Perplexity", "loss")},
        "cost/size": sizes,
        "cost/flops": sizes,
    }
    chosen = choose(arrays, "Set", "test", (0.01,))
    assert chosen.lower
    assert chosen.size[0, 0, 0, 1] == 0.5


@pytest.mark.parametrize(
    "kind", [SQUARED, "torchmetrics.regression:R2Score", "torchmetrics.regression:SpearmanCorrCoef"]
)
def test_a_metric_of_torchmetrics_is_saved_and_taken_up_again(kind: str) -> None:
    torch.manual_seed(0)
    outputs, targets = torch.randn(12, 1), torch.randn(12)
    whole, halves, resumed = (MetricSet([Component(type=kind)]) for _ in range(3))
    whole.update(outputs, targets)
    halves.update(outputs[:5], targets[:5])
    resumed.load(halves.state(), torch.device("cpu"))
    resumed.update(outputs[5:], targets[5:])
    assert resumed.compute() == pytest.approx(whole.compute(), rel=1e-5)
    resumed.reset()
    assert np.isnan(list(resumed.compute().values())).all()


def test_directions_come_from_the_class_or_the_row() -> None:
    metrics = [Component(type="TopK"), Component(type=SQUARED), Component(type="torchmetrics.regression:R2Score")]
    assert labels_lower_is_better(metrics) == ["MeanSquaredError"]
