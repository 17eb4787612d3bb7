"""Commensurate levels: a method's smallest network whose error exceeds the unpruned one's by at most a level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

# The levels at which torchprune reports, as differences of the error (0.005 is half a percentage point).
LEVELS = (-0.1, -0.05, -0.02, -0.01, -0.005, -0.0025, 0.0, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1)

# Errors are counts over a test set, thus multiples of 1/n; 0.06 must satisfy 0.05 + 0.01 despite rounding.
ROUNDING = 1e-9


def commensurate_points(
    error: np.ndarray, sizes: np.ndarray, levels: tuple[float, ...] = LEVELS, reference: int = 0
) -> np.ndarray:
    """Return the index of each run's commensurate ratio, int64 (level, net, repetition, method), -1 if it has none.

    `error` and relative `sizes` are (net, ratio, repetition, method). A ratio qualifies if error <= error of the
    reference + level and its size is at most that of the unpruned network; the smallest size is chosen, the later
    ratio on ties. Missing results (NaN) never qualify; in `torchprune` they are zeros, which do.
    """
    nets, ratios, repetitions, methods = error.shape
    points = np.full((len(levels), nets, repetitions, methods), -1, dtype=np.int64)
    for at, level in enumerate(levels):
        good = (error <= error[..., reference : reference + 1] + level + ROUNDING) & (sizes <= 1.0)
        smallest = np.ones((nets, repetitions, methods))
        for ratio in range(ratios):
            better = good[:, ratio] & (sizes[:, ratio] <= smallest)
            points[at][better] = ratio
            smallest = np.where(better, sizes[:, ratio], smallest)
    return points


def lower_is_better(arrays: dict[str, np.ndarray], label: str) -> bool:
    """Return whether less of a metric, or of `loss`, is better."""
    metrics = [str(metric) for metric in arrays["axes/metric"]]
    flags = arrays.get("metric/lower_is_better", np.zeros(len(metrics), dtype=np.bool_))
    return label == "loss" or bool(flags[metrics.index(label)])


def error_of(judge: np.ndarray, lower: bool) -> np.ndarray:
    """Return what levels are differences of: one minus a metric; if lower is better, its ratio to the reference's.

    A perplexity or a mean squared error has no fixed scale, so its levels are relative: 0.005 is half a percent more.
    """
    if not lower:
        return 1.0 - judge
    reference = np.abs(judge[..., :1])
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(reference > 0, judge / reference, np.nan)


def take(values: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return `values` (net, ratio, repetition, method) at `points` (level, net, repetition, method), NaN where -1."""
    chosen = np.take_along_axis(values[None], np.maximum(points, 0)[:, :, None], axis=2)[:, :, 0]
    return np.where(points >= 0, chosen, np.nan)


@dataclass(frozen=True)
class Commensurate:
    """Networks chosen at each level and their test results, arrays (level, net, repetition, method)."""

    test_set: str
    chosen_on: str  # "validation" or "test"
    levels: tuple[float, ...]
    points: np.ndarray
    available: np.ndarray  # bool (net, repetition, method): whether the run has a result to choose
    size: np.ndarray
    flops: np.ndarray
    loss: np.ndarray
    metrics: dict[str, np.ndarray]
    metric_changes: dict[str, np.ndarray]  # metric minus that of the unpruned network of the same net and repetition
    lower: bool = False  # is less of the first metric better? Then levels are relative
    is_share: bool = True  # does the first metric lie in [-1, 1]? Else levels are hundredths of its unit, not points

    def at(self, level: float) -> int:
        """Return the index of the level nearest to `level`."""
        return int(np.argmin(np.abs(np.asarray(self.levels) - level)))

    @property
    def reached(self) -> np.ndarray:
        """Number of runs that reach each level, int64 (level, method)."""
        return (self.points >= 0).sum(axis=(1, 2))

    @property
    def total(self) -> np.ndarray:
        """Number of runs with results, int64 (method)."""
        return self.available.sum(axis=(0, 1))

    @property
    def pruned(self) -> np.ndarray:
        """Share of parameters pruned; 0 for a run that never reaches the level, NaN without results."""
        return np.where(self.points >= 0, 1.0 - self.size, np.where(self.available, 0.0, np.nan))


def choose(
    arrays: dict[str, np.ndarray],
    test_set: str,
    chosen_on: str = "validation",
    levels: tuple[float, ...] = LEVELS,
    metric: str | None = None,
) -> Commensurate:
    """Return the commensurate networks by a metric, chosen on "validation" or, as `torchprune` does, on "test".

    `metric` is the first one of the experiment by default.

    Values of the chosen networks are always those on `test_set`. `arrays` are those of `aggregate_results`.
    """
    metrics = [str(name) for name in arrays["axes/metric"]]
    judged_by = metric or metrics[0]
    judge = arrays[f"test/{test_set}/{judged_by}"]
    if chosen_on == "validation":
        # A ratio without a test result cannot be reported, so it cannot be chosen.
        judge = np.where(np.isnan(judge), np.nan, arrays[f"validation/{judged_by}"])
    lower = lower_is_better(arrays, judged_by)
    error = error_of(judge, lower)
    points = commensurate_points(error, arrays["cost/size"], levels)
    usable = np.isfinite(error) & np.isfinite(error[..., :1])
    tested = {name: arrays[f"test/{test_set}/{name}"] for name in metrics}
    return Commensurate(
        test_set=test_set,
        chosen_on=chosen_on,
        levels=tuple(levels),
        points=points,
        available=usable.any(axis=1),
        size=take(arrays["cost/size"], points),
        flops=take(arrays["cost/flops"], points),
        loss=take(arrays[f"test/{test_set}/loss"], points),
        metrics={name: take(values, points) for name, values in tested.items()},
        metric_changes={name: take(values - values[..., :1], points) for name, values in tested.items()},
        lower=lower,
        is_share=bool(np.all(np.abs(judge[np.isfinite(judge)]) <= 1.0)),
    )


def has_validation(arrays: dict[str, np.ndarray], metric: str | None = None) -> bool:
    """Return whether a metric was measured on a validation split for the reference and one method or more.

    `metric` is the first one of the experiment by default.
    """
    metrics = arrays["axes/metric"]
    if not len(metrics):
        return False
    known = np.isfinite(arrays[f"validation/{metric or metrics[0]}"])
    return bool(known[..., 0].any() and known[..., 1:].any())


class _Judged(Protocol):
    """What says how a metric is counted: a `Commensurate`, or a verdict."""

    @property
    def lower(self) -> bool: ...

    @property
    def is_share(self) -> bool: ...


def unit_of(judged: _Judged) -> str:
    """Return what levels are counted in.

    Percentage points of a metric, percent of one of which less is better, or hundredths of one that is no share.
    """
    return "%" if judged.lower else "points" if judged.is_share else "hundredths"
