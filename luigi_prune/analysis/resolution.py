"""The resolution of a metric: how many samples it was measured on, hence which differences are less than a sample."""

from __future__ import annotations

import numpy as np

# A share of n samples is stored as a float64, or was computed as a float32 by a metric of torchmetrics.
TOLERANCE = 2e-7


def sample_count(arrays: dict[str, np.ndarray], split: str, metric: str) -> int | None:
    """Return the number of samples behind `<split>/<metric>`, where split is "validation" or "test/<test set>".

    Results store it as `samples/<split>`; from those that do not, it is the smallest number that all values are shares
    of. None if unknown, or if the values are no shares of whole samples.
    """
    stored = arrays.get(f"samples/{split}")
    if stored is not None and np.isfinite(stored).any():
        return int(np.nanmin(stored))
    return count_from_shares(arrays[f"{split}/{metric}"])


def count_from_shares(values: np.ndarray) -> int | None:
    """Return the smallest n of which all finite `values` are multiples of 1/n, or None.

    A few values may share a divisor with n, so that n comes out too small, which is the safe side: the resolution is
    then taken for coarser than it is.
    """
    shares = np.unique(values[np.isfinite(values)])
    if not len(shares) or shares[0] < 0 or shares[-1] > 1 or not np.any((shares > 0) & (shares < 1)):
        return None
    # Multiples of 1/n for a large n are everywhere dense: n must be small enough to tell a share from any number.
    limit = int(0.02 / TOLERANCE)
    step, candidates = 20_000, np.arange(2, limit)
    for start in range(0, len(candidates), step):
        block = candidates[start : start + step]
        for share in shares:
            product = block * share
            block = block[np.abs(product - np.rint(product)) <= block * TOLERANCE]
        if len(block):
            return int(block[0])
    return None
