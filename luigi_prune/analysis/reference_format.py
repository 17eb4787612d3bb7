"""The tables under the names that analysis scripts written for `torchprune` expect."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from luigi_prune.analysis.commensurate import LEVELS, commensurate_points, error_of, lower_is_better, take

LAYOUT = "[num_layers, num_nets, num_intervals, num_repetitions, num_algorithms, extra_dims]"


def reference_npz(
    arrays: dict[str, np.ndarray],
    meta: dict[str, Any],
    *,
    test_set: str,
    time_tag: str,
    labels: dict[str, str] | None = None,
    measured: dict[str, np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """Return the arrays of one test set under `torchprune`'s names, for `numpy.savez`; none needs pickle.

    `error` and `error5` are one minus the first and the second metric (NaN without a second; the metric itself where
    lower is better), `_train` and `_test` are
    per-epoch curves on training and *validation* data, `sizes` and `flops` are relative, `samples_per_layer` holds kept
    weights (layer, net, ratio, 1, method), -1 where unknown. Missing results are NaN, where `torchprune` has zeros.
    `time_tag` is a label, the caller's key of the experiment, not a time. Measured numbers are `measured_<name>`.
    `stats_comm` is JSON, because a dictionary needs pickle; its entries stand beside it as plain arrays
    `stats_comm_<name>`.
    """
    methods = arrays["axes/method"]
    metrics = [str(metric) for metric in arrays["axes/metric"]]
    names = [
        str(method) if method == "ReferenceNet" else (labels or {}).get(str(method), str(method)) for method in methods
    ]
    out = {
        "methods": methods,
        "names": np.asarray(names, dtype=np.str_),
        "time_tag": np.asarray(time_tag),
        "layout": np.asarray(LAYOUT),
        "dataset_train": np.asarray(str(meta["dataset_train"])),
        "dataset_test": np.asarray(test_set),
        "loss": arrays[f"test/{test_set}/loss"],
        "sizes": arrays["cost/size"],
        "flops": arrays["cost/flops"],
        "loss_train": arrays["curves/train_loss"],
        "loss_test": arrays["curves/validation_loss"],
        "samples_per_layer": _samples_per_layer(arrays),
        "sizes_total": arrays["cost/size_total"],
        "flops_total": arrays["cost/flops_total"],
    }
    for at, name in enumerate(("error", "error5")):
        sources = {"": f"test/{test_set}/", "_train": "curves/train/", "_test": "curves/validation/"}
        for suffix, source in sources.items():
            like = arrays["cost/size"] if suffix == "" else arrays["curves/train_loss"]
            if at >= len(metrics):
                out[name + suffix] = np.full(like.shape, np.nan)
            elif lower_is_better(arrays, metrics[at]):
                out[name + suffix] = arrays[source + metrics[at]]
            else:
                out[name + suffix] = 1.0 - arrays[source + metrics[at]]
    lower = bool(metrics) and lower_is_better(arrays, metrics[0])
    stats = _stats_comm(out, error_of(out["error"], lower) if lower else out["error"])
    out["stats_comm"] = np.asarray(_as_json(stats))
    out |= {f"stats_comm_{name}": values for name, values in stats.items()}
    for name, values in (measured or {}).items():
        if "seconds" in name or "bytes" in name:
            out["measured_" + name.replace("/", "_")] = values
    return out


def _samples_per_layer(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Return kept weights (layer, net, ratio, 1, method) of the first repetition that has them, -1 where unknown.

    Methods that prune nothing count keep ratio x layer, because scripts divide by the reference's column.
    """
    kept = arrays["layers/kept"]
    first = np.full(kept[:, :, 0].shape, np.nan)
    for repetition in range(kept.shape[2]):
        first = np.where(np.isnan(first), kept[:, :, repetition], first)
    scale = np.where(arrays["method/nominal"], arrays["axes/keep_ratio"][:, None], 1.0)
    first = first * scale[None, :, :, None]
    return np.moveaxis(np.where(np.isnan(first), -1.0, first)[:, :, None], -1, 0)


def _stats_comm(out: dict[str, np.ndarray], error: np.ndarray) -> dict[str, np.ndarray]:
    """Return the commensurate levels, chosen on the test set: arrays (level, net, repetition, method).

    NaN if a level is not reached.
    """
    points = commensurate_points(error, out["sizes"])
    sources = {"e_best": "error", "e5_best": "error5", "lo_best": "loss", "siz_best": "sizes", "flo_best": "flops"}
    values = {name: take(out[source], points) for name, source in sources.items()}
    return {"commensurate": np.asarray(LEVELS), **values}


def _as_json(stats: dict[str, np.ndarray]) -> str:
    """Return arrays as strict JSON, with null for NaN and for infinite values, which it cannot hold."""
    plain = {}
    for name, values in stats.items():
        entries = values.astype(object)
        entries[~np.isfinite(values)] = None
        plain[name] = entries.tolist()
    return json.dumps(plain, allow_nan=False)
