"""Excess error: how much more a pruned network loses on shifted test data than the unpruned one does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from luigi_prune.analysis.commensurate import lower_is_better
from luigi_prune.analysis.comparison import paired_change
from luigi_prune.analysis.inference import Interval, mean_interval, over_nets

Arrays = dict[str, np.ndarray]

RESAMPLES = 2000


@dataclass(frozen=True)
class ExcessError:
    """The excess error of a method on a shifted test set, in units of the metric.

    `slope`: the rise of the error beyond that on the nominal set, per share of parameters pruned: 0.02 is 2 points at
    100 % pruned. `mean`: the same, averaged over the ratios. Intervals are over nets. Above 0, pruning costs more on
    the shifted data than the nominal test set shows. `line` is the slope of one regression over the networks of all
    nets, with the interval of a bootstrap that draws nets; too short for fewer than 50 of them, as all bootstraps.
    `share` and `excess` are the networks that it is fitted to: share pruned, error beyond that on the nominal set.
    """

    method: int
    test_set: str
    slope: Interval
    mean: Interval
    line: Interval
    share: np.ndarray
    excess: np.ndarray


def nominal_test_set(arrays: Arrays, dataset_train: str) -> str:
    """Return the test set of the training data, the first one if that is not among them."""
    names = [str(name) for name in arrays["axes/test_set"]]
    return dataset_train if dataset_train in names else names[0]


def excess_errors(arrays: Arrays, metric: str, nominal: str) -> list[ExcessError]:
    """Return the excess errors of all methods that prune, on all test sets but the nominal one.

    A regression through the origin per net and repetition (Liebenwein et al. 2021, arXiv 2103.03014): the difference
    (pruned - unpruned) on the shifted set less that on the nominal set, against the share pruned. Ratios of one net are
    not independent, so nets are what the interval is over.
    """
    sign = 1.0 if lower_is_better(arrays, metric) else -1.0
    share = 1.0 - arrays["cost/size"]
    found = []
    for test_set in (str(name) for name in arrays["axes/test_set"] if str(name) != nominal):
        lost = {name: sign * paired_change(arrays, name, metric) for name in (test_set, nominal)}
        excess = lost[test_set] - lost[nominal]
        known = np.isfinite(excess) & np.isfinite(share)
        x, y = np.where(known, share, 0.0), np.where(known, excess, 0.0)
        products, squares, counts = (x * y).sum(axis=1), (x**2).sum(axis=1), known.sum(axis=1)
        slope = np.where(squares > 0, products / np.where(squares > 0, squares, 1.0), np.nan)
        mean = np.where(counts > 0, y.sum(axis=1) / np.maximum(counts, 1), np.nan)
        found += [
            ExcessError(
                method=int(method),
                test_set=test_set,
                slope=mean_interval(over_nets(slope[..., method])),
                mean=mean_interval(over_nets(mean[..., method])),
                line=_bootstrapped(products[..., method].sum(axis=1), squares[..., method].sum(axis=1)),
                share=share[..., method][known[..., method]],
                excess=excess[..., method][known[..., method]],
            )
            for method in np.flatnonzero(~arrays["method/nominal"])
            if counts[..., method].any()
        ]
    return found


def _bootstrapped(products: np.ndarray, squares: np.ndarray) -> Interval:
    """Return the slope through the origin with the 95 % percentile interval of resampled nets, the same every time.

    `products` and `squares` are a net's sums of x y and of x squared.
    """
    products, squares = products[squares > 0], squares[squares > 0]
    n = len(squares)
    if n < 2:
        return Interval(float(products[0] / squares[0]) if n else np.nan, np.nan, np.nan, n)
    drawn = np.random.default_rng(0).integers(0, n, (RESAMPLES, n))
    low, high = np.quantile(products[drawn].sum(axis=1) / squares[drawn].sum(axis=1), (0.025, 0.975))
    return Interval(float(products.sum() / squares.sum()), float(low), float(high), n)
