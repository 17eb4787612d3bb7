"""Made-up experiments whose results are known: grids, results and tables for the tests of analysis and report."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

LAYERS = {"conv1": 432, "conv2": 4608, "conv3": 18432, "fc": 640}
SIZE, FLOPS = 24_500, 3_100_000


class FakeResult(NamedTuple):
    """As much of `luigi_prune.results.hdf5_file.Result` as aggregation reads."""

    arrays: dict[str, np.ndarray]
    measured: dict[str, np.ndarray]


def make_grid(
    methods: tuple[str, ...] = ("ReferenceNet", "ThresNet", "FilterThresNet", "UniNet"),
    ratios: tuple[float, ...] = (0.8, 0.5, 0.25, 0.12, 0.05),
    nets: int = 3,
    repetitions: int = 2,
    test_sets: tuple[str, ...] = ("Digits",),
    mode: str = "cascade",
) -> dict[str, Any]:
    """Return a grid as the tasks build it; the reference's cells all name the same file."""

    def path(test_set: str, net: int, ratio: float, repetition: int, method: str) -> str:
        if method == "ReferenceNet":
            return f"{test_set}/{net}/ReferenceNet"
        return f"{test_set}/{net}/{ratio}/{repetition}/{method}"

    return {
        "experiment": "synthetic",
        "dataset_train": "Digits",
        "network": "cnn5",
        "mode": mode,
        "methods": list(methods),
        "keep_ratios": list(ratios),
        "num_nets": nets,
        "num_repetitions": repetitions,
        "metrics": ["TopK1", "TopK5"],
        "test_sets": list(test_sets),
        "retraining_epochs": [2, 10],
        "cells": {
            t: [
                [[[path(t, n, k, r, m) for m in methods] for r in range(repetitions)] for k in ratios]
                for n in range(nets)
            ]
            for t in test_sets
        },
    }


def read(path: str) -> FakeResult:
    """Return the made-up `Evaluate` result of `path`, a function of the path alone."""
    test_set, net, *rest = path.split("/")
    rng = np.random.default_rng([ord(letter) for letter in path])
    ratio, method = (1.0, "ReferenceNet") if rest == ["ReferenceNet"] else (float(rest[0]), rest[2])
    hardness = {"ReferenceNet": 0.0, "ThresNet": 0.004, "FilterThresNet": 0.012, "UniNet": 0.02}.get(method, 0.008)
    drop = hardness * (1 / ratio - 1) ** 1.3 + rng.normal(0, 0.002)
    accuracy = float(np.clip(0.97 - 0.03 * (test_set != "Digits") + 0.004 * int(net) - drop, 0.1, 1.0))
    kept_share = 1.0 if method in ("ReferenceNet", "FakeNet") else ratio * (1 + rng.normal(0, 0.003))
    totals = np.asarray(list(LAYERS.values()))
    slope = {"ThresNet": 0.5, "FilterThresNet": 0.05}.get(method, -0.2) + rng.normal(0, 0.05)
    tilt = np.clip(kept_share ** (1 + slope * np.linspace(-1, 1, len(totals))), 0, 1)
    start, end = (0, 10) if method == "ReferenceNet" else (2, 10)
    epochs = np.arange(start, end)
    rise = accuracy - 0.3 * np.exp(-(epochs - start + 1) / 2) + 0.003
    arrays = {
        "metrics/TopK1": np.float64(accuracy),
        "metrics/TopK5": np.float64(min(1.0, accuracy + 0.6 * (1 - accuracy))),
        "loss": np.float64(3.2 * (1 - accuracy)),
        "layers/name": np.asarray(list(LAYERS)),
        "layers/kept": np.round(totals * tilt).astype(np.int64),
        "layers/total": totals,
        "size": np.int64(round(SIZE * kept_share)),
        "flops": np.int64(round(FLOPS * kept_share ** (1.0 if "Filter" in method else 0.7))),
        "original_size": np.int64(SIZE),
        "original_flops": np.int64(FLOPS),
        "history/epoch": epochs,
        "history/learning_rate": 0.1 * 0.7**epochs,
        "history/train_loss": 3 * (1 - rise),
        "history/validation_loss": 3.2 * (1 - rise),
        "history/train/TopK1": rise + 0.01,
        "history/train/TopK5": np.minimum(rise + 0.02, 1),
        "history/validation/TopK1": rise,
        "history/validation/TopK5": np.minimum(rise + 0.02, 1),
    }
    measured = {"evaluate_seconds": np.float64(rng.uniform(0.1, 0.2)), "peak_bytes": np.int64(rng.integers(1e6, 2e6))}
    return FakeResult(arrays, measured)
