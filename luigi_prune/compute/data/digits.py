"""Handwritten digits, 8x8: the test half of UCI's optical recognition set, which scikit-learn carries (no download)."""

from __future__ import annotations

import numpy as np

from luigi_prune.compute.data.samples import RawData

TEST_SAMPLES = 360
_SPLIT_SEED = 1797  # fixed: the test set is part of the data set, not of an experiment


def load(name: str, split: str, training_data: str, local_data: str) -> RawData:
    """Return the "train" (1437) or "test" (360) digits, uint8 images (samples, 8, 8) in 0..255; no folder is read.

    The test split is stratified: each class gives its share of the 360, to within one sample.
    """
    from sklearn.datasets import load_digits  # slow to import, and only this data set needs it

    bundle = load_digits()
    images = np.rint(bundle.images * (255 / 16)).astype(np.uint8)
    targets = bundle.target.astype(np.int64)
    test = stratified_test(targets, TEST_SAMPLES, _SPLIT_SEED)
    chosen = test if split == "test" else np.setdiff1d(np.arange(len(targets)), test)
    return RawData(images[chosen], targets[chosen])


def stratified_test(targets: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return `count` sorted indices in which every class has its share, rounded by largest remainder."""
    rng = np.random.default_rng(seed)
    classes, sizes = np.unique(targets, return_counts=True)
    exact = sizes * count / len(targets)
    shares = np.floor(exact).astype(int)
    largest = np.argsort(shares - exact, kind="stable")[: count - shares.sum()]
    shares[largest] += 1
    drawn = [
        rng.permutation(np.flatnonzero(targets == label))[:share] for label, share in zip(classes, shares, strict=True)
    ]
    return np.sort(np.concatenate(drawn))
