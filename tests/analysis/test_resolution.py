"""The number of samples behind a metric."""

from __future__ import annotations

import numpy as np
import pytest

from luigi_prune.analysis.resolution import count_from_shares, sample_count


@pytest.mark.parametrize("count", [7, 143, 360, 5000, 10_000, 50_000])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_shares_of_a_count_give_the_count(count: int, kind: type) -> None:
    right = np.random.default_rng(count).integers(count // 2, count, 40)
    values = (right.astype(kind) / kind(count)).astype(np.float64)
    found = count_from_shares(np.append(values, np.nan))
    assert found is not None
    assert count % found == 0
    assert found == count or found < 20  # few samples share a divisor easily


def test_numbers_that_are_no_shares_have_no_count() -> None:
    rng = np.random.default_rng(0)
    assert count_from_shares(rng.uniform(0.5, 1, 40)) is None
    assert count_from_shares(rng.uniform(1, 9, 40)) is None
    assert count_from_shares(np.array([np.nan, 1.0])) is None


def test_the_stored_count_comes_first() -> None:
    arrays = {"validation/TopK1": np.array([0.5, 0.25]), "samples/validation": np.array([143.0, np.nan])}
    assert sample_count(arrays, "validation", "TopK1") == 143
    del arrays["samples/validation"]
    assert sample_count(arrays, "validation", "TopK1") == 4
