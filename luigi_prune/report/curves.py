"""Curves of the change of a metric over compression: what figures draw, and what the page's script draws again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from luigi_prune.analysis.commensurate import lower_is_better
from luigi_prune.analysis.comparison import paired_change
from luigi_prune.analysis.resolution import sample_count
from luigi_prune.analysis.statistics import Spread, by_run, spread

Arrays = dict[str, np.ndarray]

# Depths at which an axis may end, the shallowest that shows most of the networks; others are marked at its edge.
DEPTHS = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0)
SHOWN_SHARE = 0.75
ZONES = 2.0  # a figure is at least so many times as deep as the change of one sample
# With two nets, 95 % intervals are 13 times as wide as the spread, and bands would hide all lines.
LEAST_NETS_FOR_BANDS = 3


@dataclass(frozen=True)
class Curve:
    """One method: factors of compression in ascending order, the mean change and its 95 % interval over nets."""

    method: int
    compression: np.ndarray
    change: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class Quality:
    """A metric on a test set over (ratio, method): mean, and change against the unpruned network of the same run.

    Values are times `scale`, in `unit`; `zone` is the change of one test sample in that unit, None if unknown.
    """

    label: str
    unit: str
    scale: float
    lower: bool
    zone: float | None
    value: Spread
    change: Spread


def is_share(values: np.ndarray) -> bool:
    """Return whether a metric can be shown in percent: all its values lie in [-1, 1]."""
    finite = values[np.isfinite(values)]
    return bool(len(finite)) and bool(np.all(np.abs(finite) <= 1.0))


def in_percent(arrays: Arrays, label: str, values: np.ndarray) -> bool:
    """Return whether values of a metric are shown in percent; never those of the loss, or of which less is better."""
    return not lower_is_better(arrays, label) and is_share(values)


def within(keep_ratios: np.ndarray, plotting: dict[str, float]) -> np.ndarray:
    """Return which ratios lie in the plotted range [min_val, max_val]; all of them if none does."""
    inside = (keep_ratios >= plotting["min_val"] - 1e-9) & (keep_ratios <= plotting["max_val"] + 1e-9)
    return inside if inside.any() else np.ones_like(inside)


def without_copies(values: np.ndarray) -> np.ndarray:
    """Return `values` (net, ratio, repetition, method) with NaN for copies of unpruned results, which are no runs."""
    out = values.copy()
    out[:, 1:, :, 0] = np.nan
    out[:, :, 1:, 0] = np.nan
    return out


def measured_metric(arrays: Arrays, test_set: str, label: str) -> Quality:
    """Return a metric or `loss` on a test set."""
    values = arrays[f"test/{test_set}/{label}"]
    percent = in_percent(arrays, label, values)
    samples = sample_count(arrays, f"test/{test_set}", label) if percent else None
    scale = 100.0 if percent else 1.0
    return Quality(
        label=label,
        unit="points" if percent else "",
        scale=scale,
        lower=lower_is_better(arrays, label),
        zone=scale / samples if samples else None,
        value=spread(by_run(without_copies(values))),
        change=spread(by_run(paired_change(arrays, test_set, label))),
    )


def with_bands(arrays: Arrays) -> bool:
    """Return whether figures show confidence bands, and the page does so unasked."""
    return len(arrays["axes/net"]) >= LEAST_NETS_FOR_BANDS


def compression_factors(arrays: Arrays, cost: str) -> np.ndarray:
    """Return the geometric mean over runs of original over kept (ratio, method); `cost`: `cost/size`, `cost/flops`."""
    kept = arrays[cost]
    with np.errstate(divide="ignore", invalid="ignore"):
        factors = 2 ** spread(by_run(np.where(kept > 0, -np.log2(kept), np.nan))).mean
    return np.asarray(factors)


def curves(arrays: Arrays, found: Quality, cost: str, shown: np.ndarray) -> list[Curve]:
    """Return the curves of all methods with results over the ratios `shown` (bool), without the unpruned network."""
    factors = compression_factors(arrays, cost)
    made = []
    for method in range(1, factors.shape[1]):
        known = shown & np.isfinite(factors[:, method]) & np.isfinite(found.change.mean[:, method])
        if known.any():
            order = np.argsort(factors[known, method], kind="stable")
            parts = (found.change.mean, found.change.low, found.change.high)
            change, low, high = (found.scale * part[known, method][order] for part in parts)
            made.append(Curve(method, factors[known, method][order], change, low, high))
    return made


def depth_shown(made: Sequence[Curve], lower: bool, zone: float | None = None) -> float | None:
    """Return by how much the worst networks shown are worse than the unpruned one; None: show all.

    That is the shallowest depth that shows most networks: the few that lie deeper would flatten all other lines. It is
    twice `zone`, the change of one sample, or more, so that the zone does not fill the figure.
    """
    losses = np.concatenate([curve.change for curve in made]) * (1 if lower else -1) if made else np.zeros(0)
    depths = [depth for depth in DEPTHS if depth >= ZONES * (zone or 0.0)]
    deep_enough = [depth for depth in depths if len(losses) and (losses <= depth).mean() >= SHOWN_SHARE]
    return deep_enough[0] if deep_enough else None
