"""Tables of what not every result has: quality before retraining, calibration, accuracy per class, sample counts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]
Cell = tuple[int, int, int, int]


@dataclass
class OptionalTables:
    """Tables over the cells (net, ratio, repetition, method) of `shape`; a table exists once a result has its values.

    - `before/<test set>/<metric>`, `before/<test set>/loss`: right after pruning, before retraining;
    - `calibration_error/<test set>`: expected calibration error;
    - `class_accuracy/<test set>` (..., class), float32: share of the samples of a class that are right;
    - `agreement/<test set>`: share of the samples that the network and the unpruned one of the same net take for the
      same class;
    - `agreement_unpruned/<test set>` (net): the same for the unpruned networks of a net and of the next one, which
      share nothing but their training data;
    - `samples/test/<test set>`, `samples/validation` (net): number of samples behind every metric.
    """

    shape: Cell
    labels: tuple[str, ...]
    arrays: Arrays = field(default_factory=dict)
    _unpruned: dict[tuple[str, int], np.ndarray] = field(default_factory=dict)

    def fill(self, source: Arrays, test_set: str, cell: Cell) -> None:
        """Write one result into one cell."""
        for label in self.labels:
            if f"before/{label}" in source:
                self._table(f"before/{test_set}/{label}", self.shape)[cell] = source[f"before/{label}"]
        if "calibration_error" in source:
            self._table(f"calibration_error/{test_set}", self.shape)[cell] = source["calibration_error"]
        if "classes/total" in source:
            right, total = (np.asarray(source[f"classes/{name}"], dtype=np.float64) for name in ("right", "total"))
            table = self._table(f"class_accuracy/{test_set}", (*self.shape, len(total)), np.float32)
            if table.shape[-1] == len(total):
                table[cell] = np.where(total > 0, right / np.maximum(total, 1), np.nan)
        if "classes/guess" in source:
            self._compare(source["classes/guess"], test_set, cell)
        for name, found in (("validation", "history/validation_samples"), (f"test/{test_set}", "samples")):
            if found in source:
                self._table(f"samples/{name}", self.shape[:1])[cell[0]] = source[found]

    def _compare(self, guess: np.ndarray, test_set: str, cell: Cell) -> None:
        """Write the agreement with the unpruned network, whose cells come before those of all others of a net."""
        net, *_, method = cell
        if method == 0 and (test_set, net) not in self._unpruned:
            self._unpruned[test_set, net] = guess
            other = self._unpruned.get((test_set, net - 1))
            if other is not None and other.shape == guess.shape:
                self._table(f"agreement_unpruned/{test_set}", self.shape[:1])[net - 1] = np.mean(guess == other)
        unpruned = self._unpruned.get((test_set, net))
        if method and unpruned is not None and unpruned.shape == guess.shape:
            self._table(f"agreement/{test_set}", self.shape)[cell] = np.mean(guess == unpruned)

    def _table(self, name: str, shape: tuple[int, ...], dtype: Any = np.float64) -> np.ndarray:
        if name not in self.arrays:
            self.arrays[name] = np.full(shape, np.nan, dtype=dtype)
        return self.arrays[name]
