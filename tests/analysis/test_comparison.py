"""Ranking, quality at fixed sizes, and the checklist."""

from __future__ import annotations

import numpy as np
import pytest

from luigi_prune.analysis.aggregate import aggregate_results
from luigi_prune.analysis.comparison import at_compression, checklist, largest_miss, paired_change
from tests.synthetic import make_grid, read


def test_interpolation_hits_the_points_and_never_extrapolates() -> None:
    arrays = aggregate_results(
        make_grid(nets=1, repetitions=1, methods=("ReferenceNet", "ThresNet"), ratios=(0.5, 0.125)), read
    ).arrays
    arrays["cost/size"][0, :, 0, 1] = [0.5, 0.125]
    arrays["test/Digits/TopK1"][0, :, 0, :] = [[0.9, 0.8], [0.9, 0.4]]
    at = at_compression(arrays, "Digits", "TopK1", (1.0, 2.0, 4.0, 8.0, 16.0))[:, 0, 0, 1]
    assert at[:4] == pytest.approx([0.9, 0.8, 0.6, 0.4])
    assert np.isnan(at[4])


def test_the_change_is_against_the_same_net() -> None:
    arrays = aggregate_results(make_grid(), read).arrays
    change = paired_change(arrays, "Digits", "TopK1")
    assert (change[..., 0] == 0).all()
    assert change[2, 1, 0, 1] == arrays["test/Digits/TopK1"][2, 1, 0, 1] - arrays["test/Digits/TopK1"][2, 0, 0, 0]


def test_largest_miss() -> None:
    arrays = aggregate_results(make_grid(nets=1, repetitions=1), read).arrays
    arrays["cost/size"][0, 2, 0, 1] = 0.3
    assert largest_miss(arrays)[1] == pytest.approx(0.2)
    arrays["cost/size"][..., 1] = np.nan
    assert np.isnan(largest_miss(arrays)[1])


def test_checklist_says_what_is_missing() -> None:
    tables = aggregate_results(make_grid(methods=("ReferenceNet", "ThresNet"), ratios=(0.5, 0.2)), read)
    met = {check.question: check.met for check in checklist(tables.arrays, {}, tables.meta, {})}
    assert not met["Random-pruning baseline"]
    assert not met["At least 5 operating points"]
    assert not met["At least 5 independently trained networks"]
    assert not met["Measured cost"]
    assert not met["Environment, version and settings recorded"]
    tables = aggregate_results(make_grid(nets=5, repetitions=1), read)
    met = {
        check.question: check.met for check in checklist(tables.arrays, tables.measured, tables.meta, {"commit": "c"})
    }
    assert [question for question, here in met.items() if not here] == ["Quality before retraining"]
