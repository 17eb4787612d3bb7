"""Means with their spread over independently trained networks and repetitions, and paired differences."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Below this many independent networks a difference is called indicative only (a bootstrap or permutation test over 3
# cannot be significant).
SOUND_NUMBER_OF_NETS = 5


@dataclass(frozen=True)
class Spread:
    """Mean, sample standard deviation (ddof 1; NaN for one run), range, number of runs, confidence interval."""

    mean: np.ndarray
    std: np.ndarray
    minimum: np.ndarray
    maximum: np.ndarray
    n: np.ndarray
    low: np.ndarray
    high: np.ndarray
    n_independent: np.ndarray

    @property
    def indicative(self) -> np.ndarray:
        """True where too few independent networks stand behind a number to call a difference more than indicative."""
        return self.n_independent < SOUND_NUMBER_OF_NETS


def by_run(values: np.ndarray) -> np.ndarray:
    """Return (net, ratio, repetition, ...) as (net, repetition, ratio, ...), the order that `spread` takes."""
    return np.swapaxes(values, 1, 2)


def spread(values: np.ndarray, confidence: float = 0.95) -> Spread:
    """Return the spread over the first two axes (net, repetition) of `values`; NaN is a missing run.

    The confidence interval is Student's t over the *means of nets*, because repetitions share their trained network and
    are not independent; with a single net it is over its repetitions, and holds for that net only.
    """
    from scipy.special import stdtrit  # here, because every training job imports this module for its TensorBoard log

    runs = values.reshape(-1, *values.shape[2:])
    mean, std, n = _moments(runs)
    per_net = _moments(np.swapaxes(values, 0, 1))[0]
    nets = np.isfinite(per_net).sum(axis=0)
    over_nets, over_runs = _moments(per_net), (mean, std, n)
    center, deviation, units = (np.where(nets > 1, a, b) for a, b in zip(over_nets, over_runs, strict=True))
    freedom = np.where(units > 1, units - 1, np.nan)
    width = stdtrit(freedom, 0.5 + confidence / 2) * deviation / np.sqrt(np.maximum(units, 1))
    known = n > 0
    return Spread(
        mean=mean,
        std=std,
        minimum=np.where(known, np.where(np.isnan(runs), np.inf, runs).min(axis=0, initial=np.inf), np.nan),
        maximum=np.where(known, np.where(np.isnan(runs), -np.inf, runs).max(axis=0, initial=-np.inf), np.nan),
        n=n,
        low=center - width,
        high=center + width,
        n_independent=np.where(known, nets, 0),
    )


def first_known(values: np.ndarray) -> np.ndarray:
    """Return the first finite entry of each row of `values` (net, ...), shape (net), NaN where there is none."""
    rows = values.reshape(len(values), -1)
    known = np.isfinite(rows)
    first = rows[np.arange(len(rows)), known.argmax(axis=1)]
    return np.where(known.any(axis=1), first, np.nan)


def _moments(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean, sample standard deviation (ddof 1) and number of the finite entries along the first axis."""
    finite = np.isfinite(values)
    n = finite.sum(axis=0)
    mean = np.where(n > 0, np.where(finite, values, 0.0).sum(axis=0) / np.maximum(n, 1), np.nan)
    squares = np.where(finite, (values - mean) ** 2, 0.0).sum(axis=0)
    return mean, np.where(n > 1, np.sqrt(squares / np.maximum(n - 1, 1)), np.nan), n
