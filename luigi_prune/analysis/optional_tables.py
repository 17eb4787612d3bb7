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
    - `samples/test/<test set>`, `samples/validation` (net): number of samples behind every metric.
    """

    shape: Cell
    labels: tuple[str, ...]
    arrays: Arrays = field(default_factory=dict)

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
        for name, found in (("validation", "history/validation_samples"), (f"test/{test_set}", "samples")):
            if found in source:
                self._table(f"samples/{name}", self.shape[:1])[cell[0]] = source[found]

    def _table(self, name: str, shape: tuple[int, ...], dtype: Any = np.float64) -> np.ndarray:
        if name not in self.arrays:
            self.arrays[name] = np.full(shape, np.nan, dtype=dtype)
        return self.arrays[name]
