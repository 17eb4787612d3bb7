"""The horizontal axes of the plot: compression, latency, and the time that a network took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from luigi_prune.analysis.costs import total_seconds
from luigi_prune.analysis.statistics import by_run, spread
from luigi_prune.report.curves import compression_factors

Arrays = Mapping[str, np.ndarray]

_UNITS = (("h", 3600.0), ("min", 60.0), ("s", 1.0))


@dataclass(frozen=True)
class ChartAxis:
    """One choice of the plot: `values` (ratio, method) are factors on a logarithmic axis, or amounts of `unit`."""

    name: str
    label: str
    unit: str
    values: np.ndarray


def chart_axes(arrays: dict[str, np.ndarray], measured: Arrays, meta: Mapping[str, Any]) -> list[ChartAxis]:
    """Return the axes that the results have values for, parameters first."""
    axes = [
        ChartAxis(name, f"compression of {name}: original over kept", "×", compression_factors(arrays, source))
        for name, source in (("parameters", "cost/size"), ("FLOPs", "cost/flops"))
    ]
    pruning = ~arrays["method/nominal"]
    for kind in ("compact", "masked"):
        if (ratio := measured.get(f"latency_{kind}_ratio")) is not None and np.isfinite(ratio[..., pruning]).any():
            with np.errstate(divide="ignore", invalid="ignore"):
                faster = 2 ** spread(by_run(np.where(ratio > 0, -np.log2(ratio), np.nan))).mean
            label = f"measured speed-up: latency of the dense network over the {kind} one's"
            axes.append(ChartAxis("latency", label, "×", np.where(pruning, faster, np.nan)))
            break
    behind = total_seconds(measured, str(meta.get("mode", "")))
    if behind is not None and np.isfinite(behind.total).any():
        # The median: a task that waited for others on its machine would move the mean.
        seconds = _median(behind.total)
        unit, size = next(each for each in _UNITS if np.nanmax(seconds) >= 3 * each[1] or each[1] == 1)
        label = f"time behind a network ({unit}): training, all steps of pruning and retraining; median"
        axes.append(ChartAxis("time", label, unit, seconds / size))
    return axes


def _median(values: np.ndarray) -> np.ndarray:
    """Return the median over runs (ratio, method) of values (net, ratio, repetition, method), NaN without any."""
    runs = by_run(values).reshape(-1, values.shape[1], values.shape[3])
    known = np.isfinite(runs).any(axis=0)
    return np.where(known, np.nanmedian(np.where(known, runs, 0.0), axis=0), np.nan)
