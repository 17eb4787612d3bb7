"""One row per method: compression at levels, cost, quality before and after retraining, all over the same runs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from luigi_prune.analysis.censoring import Censored, RunsAtLevel, censored, runs_at_level
from luigi_prune.analysis.commensurate import choose
from luigi_prune.analysis.comparison import paired_change
from luigi_prune.analysis.inference import Interval, mean_interval, over_nets
from luigi_prune.analysis.verdict import DECISION_LEVELS, Verdict

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class LeaderboardRow:
    """A method at the level of the verdict; a run that does not reach it enters every column with its largest network.

    `compression` is by level; `flops` a factor like it; `change` the metric on the test set minus the unpruned
    network's, `before` the same before retraining; `area` the mean change over log2 compression from 1 to the largest
    that all methods have; `calibration_error` the expected one minus the unpruned network's; `worst_class` the class
    that loses most, with its mean change. None if not measured. `prune_seconds` and `retrain_seconds` are means per
    network, NaN if unknown. `tied`: not shown worse than the best.
    """

    method: int
    compression: dict[float, Censored]
    flops: Censored
    change: Interval
    before: Interval | None
    area: Interval
    calibration_error: Interval | None
    worst_class: tuple[int, float] | None
    prune_seconds: float
    retrain_seconds: float
    tied: bool


def leaderboard(arrays: Arrays, measured: Arrays, found: Verdict) -> list[LeaderboardRow]:
    """Return the rows of the methods that a verdict compares, in its order; levels are those not finer than its own."""
    chosen = choose(arrays, found.test_set, found.chosen_on, metric=found.metric)
    levels = [level for level in DECISION_LEVELS if level >= found.level]
    runs = {level: runs_at_level(chosen, arrays, level) for level in levels}
    main = runs[found.level]
    change = main.take(paired_change(arrays, found.test_set, found.metric))
    before = change_before_retraining(arrays, found.test_set, found.metric)
    calibration = arrays.get(f"calibration_error/{found.test_set}")
    if calibration is not None:
        calibration = main.take(calibration - calibration[..., :1])
    areas = area_under_curve(arrays, found.test_set, found.metric, found.order)
    return [
        LeaderboardRow(
            method=method,
            compression={level: censored(runs[level], arrays["cost/size"], method) for level in levels},
            flops=censored(main, arrays["cost/flops"], method),
            change=mean_interval(over_nets(change[..., method])),
            before=None if before is None else mean_interval(over_nets(main.take(before)[..., method])),
            area=mean_interval(over_nets(areas[..., method])),
            calibration_error=None if calibration is None else mean_interval(over_nets(calibration[..., method])),
            worst_class=worst_class(arrays, found.test_set, main, method),
            prune_seconds=_mean_of(measured, "prune_seconds", method),
            retrain_seconds=_mean_of(measured, "retrain_seconds", method),
            tied=method in found.tied,
        )
        for method in found.order
    ]


def change_before_retraining(arrays: Arrays, test_set: str, metric: str) -> np.ndarray | None:
    """Return the metric right after pruning minus the unpruned network's (net, ratio, repetition, method), or None."""
    values = arrays.get(f"before/{test_set}/{metric}")
    if values is None or not np.isfinite(values).any():
        return None
    return values - arrays[f"test/{test_set}/{metric}"][..., :1]


def worst_class(arrays: Arrays, test_set: str, runs: RunsAtLevel, method: int) -> tuple[int, float] | None:
    """Return the class whose accuracy falls most on average over the runs' networks, and its change, or None."""
    accuracy = arrays.get(f"class_accuracy/{test_set}")
    if accuracy is None:
        return None
    change = accuracy[..., method, :].astype(np.float64) - accuracy[..., 0, :]
    points = np.maximum(runs.point[..., method], 0)[:, None, :, None]
    chosen = np.take_along_axis(change, points, axis=1)[:, 0][runs.available[..., method]]
    known = np.isfinite(chosen)
    if not known.any():
        return None
    sums = np.where(known, chosen, 0.0).sum(axis=0)
    means = np.where(known.any(axis=0), sums / np.maximum(known.sum(axis=0), 1), np.inf)
    worst = int(np.argmin(means))
    return worst, float(means[worst])


def area_under_curve(arrays: Arrays, test_set: str, metric: str, methods: tuple[int, ...]) -> np.ndarray:
    """Return the mean change of a metric over log2 compression, (net, repetition, method), NaN for other methods.

    From 1, where the change is 0, to the largest compression that every run of `methods` has; the curve is linear
    between its networks. A run's networks count by their size, whatever ratio was asked for.
    """
    change, size = paired_change(arrays, test_set, metric), arrays["cost/size"]
    nets, _, repetitions, _ = change.shape
    out = np.full((nets, repetitions, change.shape[-1]), np.nan)
    curves = {}
    for net, repetition, method in np.ndindex(out.shape):
        y, kept = change[net, :, repetition, method], size[net, :, repetition, method]
        known = np.isfinite(y) & np.isfinite(kept) & (kept > 0)
        if method in methods and known.any():
            x = np.concatenate([[0.0], -np.log2(kept[known])])
            order = np.argsort(x, kind="stable")
            curves[net, repetition, method] = x[order], np.concatenate([[0.0], y[known]])[order]
    end = min((x[-1] for x, _ in curves.values()), default=0.0)
    if end <= 0:
        return out
    for place, (x, y) in curves.items():
        inside = np.concatenate([x[x < end], [end]])
        out[place] = _integral(inside, np.interp(inside, x, y)) / end
    return out


def _mean_of(measured: Arrays, name: str, method: int) -> float:
    values = measured[name][..., method] if name in measured else np.zeros(0)
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def _integral(x: np.ndarray, y: np.ndarray) -> float:
    """Return the integral by the trapezoidal rule; numpy's function has another name before 2.0."""
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2))
