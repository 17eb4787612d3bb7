"""Handwritten digits, 8x8: the test set of UCI's optical recognition data, included in scikit-learn (no download)."""

from __future__ import annotations

import numpy as np

from luigi_prune.compute.data.data_sources import RawData

TEST_SAMPLES = 360
_SPLIT_SEED = 1797  # fixed: the test set is part of the data set, not of an experiment


def read_digits(name: str, split: str, training_data: str, local_data: str) -> RawData:
    """Return the "train" (1437) or "test" (360) digits, uint8 images (samples, 8, 8) in 0..255; reads no folder.

    The test split is stratified: each class has its share of the 360, to within one sample.
    """
    from sklearn.datasets import load_digits  # slow to import, used by this data set only

    bundle = load_digits()
    images = np.rint(bundle.images * (255 / 16)).astype(np.uint8)
    targets = bundle.target.astype(np.int64)
    test = stratified_test(targets, TEST_SAMPLES, _SPLIT_SEED)
    indices = test if split == "test" else np.setdiff1d(np.arange(len(targets)), test)
    return RawData(images[indices], targets[indices])


def stratified_test(targets: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return `count` sorted indices with every class in proportion, rounded by largest remainder."""
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
