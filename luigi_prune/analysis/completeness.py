"""Which evaluations of an experiment exist, per test set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

Arrays = dict[str, np.ndarray]


class Evaluated(NamedTuple):
    """The evaluations of one test set, and the methods that lack some; the unpruned networks are one of the methods."""

    test_set: str
    there: int
    expected: int
    lacking: tuple[int, ...]

    @property
    def missing(self) -> int:
        """Number of evaluations that do not exist."""
        return self.expected - self.there


def exists(arrays: Arrays, meta: dict[str, Any], test_set: str) -> np.ndarray:
    """Return which evaluations on a test set exist, bool (net, ratio, repetition, method).

    A metric or a loss that is not a number is a result, too; where all of them are, only a test set without any missing
    result shows it.
    """
    labels = [*(str(metric) for metric in arrays["axes/metric"]), "loss"]
    known = np.logical_or.reduce([~np.isnan(arrays[f"test/{test_set}/{label}"]) for label in labels])
    return known | (meta.get("missing", {}).get(test_set) == 0)


def evaluated(arrays: Arrays, meta: dict[str, Any]) -> list[Evaluated]:
    """Return what exists, per test set. Every evaluation counts once, though its cells may be many.

    An unpruned network is the same at all ratios and repetitions, and in mode `retrain` a control is at all ratios.
    """
    found, mode = [], str(meta.get("mode", ""))
    for name in (str(test_set) for test_set in arrays["axes/test_set"]):
        known = exists(arrays, meta, name)
        counted = np.ones(known.shape, dtype=np.bool_)
        counted[..., 0] = False
        counted[:, 0, 0, 0] = True
        if "cascade" not in mode:
            counted[:, 1:] &= ~arrays["method/nominal"]
        there = known & counted
        lacking = np.flatnonzero((there != counted).any(axis=(0, 1, 2)))
        found.append(Evaluated(name, int(there.sum()), int(counted.sum()), tuple(lacking.tolist())))
    return found


def missing_and_expected(sets: Sequence[Evaluated]) -> tuple[int, int]:
    """Return the number of evaluations that are missing, and that of all, over all test sets."""
    return sum(each.missing for each in sets), sum(each.expected for each in sets)
