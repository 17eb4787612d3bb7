"""Intervals and tests for differences paired by net: Student's t, BCa bootstrap, sign flips, Holm."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# Below this many nets the bootstrap resamples too few values: its 95 % intervals of a mean cover less than Student's t,
# for normal, skewed and rounded differences alike (benchmarks/verdict.py).
ENOUGH_FOR_BOOTSTRAP = 50
# All sign flips are enumerated up to 13 nets; beyond, so many are drawn.
SIGN_FLIPS = 9999


class Interval(NamedTuple):
    """Mean over nets with its confidence interval; NaN limits for fewer than two nets."""

    mean: float
    low: float
    high: float
    n: int

    @property
    def excludes_zero(self) -> bool:
        """Whether all of the interval is above, or all of it below zero."""
        return bool(self.low > 0 or self.high < 0)


def over_nets(values: np.ndarray) -> np.ndarray:
    """Return the means over repetitions of `values` (net, repetition), without nets that have none.

    Repetitions share their trained network, so nets are what is independent.
    """
    known = np.isfinite(values)
    counts = known.sum(axis=1)
    return np.where(known, values, 0.0).sum(axis=1)[counts > 0] / counts[counts > 0]


def mean_interval(values: np.ndarray, confidence: float = 0.95, least_std: float = 0.0) -> Interval:
    """Return mean and confidence interval of independent `values`: Student's t; BCa bootstrap from 50 values on.

    `least_std` is the standard deviation that rounding alone gives: three equal values on a coarse grid are no proof
    of a standard deviation of zero.
    """
    n = len(values)
    if n < 2:
        return Interval(float(values[0]) if n else np.nan, np.nan, np.nan, n)
    mean, std = float(np.mean(values)), float(np.std(values, ddof=1))
    if n >= ENOUGH_FOR_BOOTSTRAP and std > least_std:
        return bootstrap_interval(values, confidence)
    from scipy.special import stdtrit

    width = float(stdtrit(n - 1, 0.5 + confidence / 2)) * max(std, least_std) / np.sqrt(n)
    return Interval(mean, mean - width, mean + width, n)


def bootstrap_interval(values: np.ndarray, confidence: float = 0.95) -> Interval:
    """Return mean and BCa bootstrap interval of independent `values` (Efron 1987), the same on every call."""
    from scipy.stats import bootstrap

    mean, n = float(np.mean(values)), len(values)
    if n < 2 or np.ptp(values) == 0:
        limit = mean if n > 1 else np.nan
        return Interval(mean if n else np.nan, limit, limit, n)
    found = bootstrap(
        (values,), np.mean, confidence_level=confidence, method="BCa", n_resamples=4999,
        random_state=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    return Interval(mean, float(found.low), float(found.high), n)


def sign_flip_p(differences: np.ndarray) -> float:
    """Return the two-sided p-value of a sign-flip permutation test of paired differences, NaN for fewer than two.

    With n nets it is at least 2 / 2^n: 0.25 for three, 0.0625 for five.
    """
    if len(differences) < 2:
        return float("nan")
    if not np.any(differences):
        return 1.0
    from scipy.stats import permutation_test

    found = permutation_test(
        (differences,), _mean, permutation_type="samples", vectorized=True, n_resamples=SIGN_FLIPS,
        random_state=np.random.default_rng(0),
    )  # fmt: skip
    return float(found.pvalue)


def _mean(values: np.ndarray, axis: int) -> np.ndarray:
    return np.asarray(np.mean(values, axis=axis))


def holm(p_values: np.ndarray) -> np.ndarray:
    """Return the p-values adjusted for their number (Holm 1979); NaN stays, and does not count."""
    adjusted = np.full(p_values.shape, np.nan)
    places = np.flatnonzero(np.isfinite(p_values))
    order = places[np.argsort(p_values[places], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p_values[order] * factors))
    return adjusted
