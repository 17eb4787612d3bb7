"""Compression at a level as an interval-censored number: a grid of ratios gives bounds at both of its ends.

A run that reaches a level at no ratio has a compression below that of its largest network; a run that still reaches it
at its smallest network has at least that compression. Neither is an unpruned network, nor a value.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from luigi_prune.analysis.commensurate import Commensurate
from luigi_prune.analysis.completeness import exists
from luigi_prune.analysis.inference import mean_interval, over_nets

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Censored:
    """A factor of compression: geometric mean over nets, with its 95 % interval.

    `at_least`: one run or more ends the grid within the level, so the mean is a lower bound. `at_most`: one run or
    more reaches the level nowhere and enters with its largest network, so the mean is an upper bound. With both, it is
    neither. `reached` of `of` runs reach the level. The interval ends where the grid does: `high` is infinite if it
    goes beyond the smallest network or a run ends there, `low` is 1 if a run reaches the level nowhere.
    """

    value: float
    at_least: bool
    at_most: bool
    reached: int
    of: int
    low: float
    high: float

    @property
    def sign(self) -> str:
        """The sign in front of the number: "≥", "<", "≈" if bounded by neither side, or "" for a value."""
        return {(True, False): "≥", (False, True): "<", (True, True): "≈"}.get((self.at_least, self.at_most), "")


@dataclass(frozen=True)
class RunsAtLevel:
    """What every run keeps at one level, arrays (net, repetition, method).

    `point` is the chosen ratio, or that of the largest network if none qualifies (`never`), -1 without results;
    `ended`: the chosen network is the run's smallest.
    """

    point: np.ndarray
    never: np.ndarray
    ended: np.ndarray
    available: np.ndarray

    def take(self, values: np.ndarray) -> np.ndarray:
        """Return `values` (net, ratio, repetition, method) at these networks, NaN without results."""
        chosen = np.take_along_axis(values, np.maximum(self.point, 0)[:, None], axis=1)[:, 0]
        return np.where(self.available, chosen, np.nan)


def runs_at_level(chosen: Commensurate, arrays: Arrays, level: float) -> RunsAtLevel:
    """Return the network that represents each run at a level; the same one in every column of a table."""
    points = chosen.points[chosen.at(level)]
    size = arrays["cost/size"]
    known = np.isfinite(size) & exists(arrays, {}, chosen.test_set)  # those that diverged, too
    largest = np.where(known, size, -np.inf).argmax(axis=1)
    smallest = np.where(known, size, np.inf).min(axis=1)
    available = chosen.available & known.any(axis=1)
    never = available & (points < 0)
    point = np.where(points >= 0, points, np.where(available, largest, -1))
    at_point = np.take_along_axis(size, np.maximum(point, 0)[:, None], axis=1)[:, 0]
    return RunsAtLevel(point, never, available & ~never & (at_point <= smallest), available)


def log_compression(runs: RunsAtLevel, share: np.ndarray) -> np.ndarray:
    """Return log2 of original over kept (net, repetition, method); `share` is `cost/size` or `cost/flops`."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(-np.log2(runs.take(share)))


def censored(runs: RunsAtLevel, share: np.ndarray, method: int) -> Censored:
    """Return a method's compression at a level over its nets."""
    found = mean_interval(over_nets(log_compression(runs, share)[..., method]))
    available, never = runs.available[..., method], runs.never[..., method]
    at_least, at_most = bool(runs.ended[..., method].any()), bool(never.any())
    kept = share[..., method][np.isfinite(share[..., method]) & (share[..., method] > 0)]
    end = 1 / kept.min() if len(kept) else np.inf
    low, high = max(1.0, 2**found.low), 2**found.high  # the unpruned network is within every level
    return Censored(
        value=float(2**found.mean),
        at_least=at_least,
        at_most=at_most,
        reached=int((available & ~never).sum()),
        of=int(available.sum()),
        low=float("nan") if np.isnan(found.low) else 1.0 if at_most else float(low),
        high=float("nan") if np.isnan(found.high) else float(np.inf if at_least or high > end else high),
    )


def on_grid(values: np.ndarray, keep_ratios: np.ndarray) -> tuple[np.ndarray, float]:
    """Return log2 compressions moved to the nearest one asked for, and the mean step of that grid (0 for one ratio).

    Sizes of networks pruned to the same ratio differ by the size of a filter, which is no merit of a method.
    """
    grid = np.unique(-np.log2(keep_ratios[keep_ratios > 0]))
    if not len(grid):
        return values, 0.0
    nearest = np.abs(np.where(np.isfinite(values), values, 0.0)[..., None] - grid).argmin(axis=-1)
    step = float(np.ptp(grid)) / (len(grid) - 1) if len(grid) > 1 else 0.0
    return np.where(np.isfinite(values), grid[nearest], np.nan), step
