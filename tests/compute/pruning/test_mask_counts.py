"""A mask is counted once in a prune, and again if it has changed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from luigi_prune.compute.pruning.problem import masks as counted
from luigi_prune.compute.pruning.problem.masks import initial_masks, kept_of, remembering_counts, removals
from tests.compute.pruning.test_contract import prune_like


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of entries of the masks that are counted."""
    seen: list[int] = []
    count = counted.counts_true

    def noted(masks: list[Tensor]) -> list[int]:
        masks = list(masks)
        seen.extend(mask.numel() for mask in masks)
        return count(masks)

    monkeypatch.setattr(counted, "counts_true", noted)
    return seen


def test_a_mask_is_counted_once_unless_it_changes(counts: list[int]) -> None:
    mask = torch.tensor([True, False, True])

    @remembering_counts
    def run() -> None:
        full = initial_masks(nn.Linear(3, 2), {"bias": torch.tensor([True, False])})
        assert kept_of([mask, mask, full["weight"]]) == [2, 2, 6]
        assert counts == [3]
        assert list(removals(full)) == ["bias"]
        mask[0] = False
        assert kept_of([mask]) == [1]
        assert counts == [3, 2, 3]
        for length in range(20):  # one after the other, in the same memory
            assert kept_of([torch.ones(length, dtype=torch.bool)]) == [length]

    run()
    counts.clear()
    assert kept_of([mask]) == kept_of([mask]) == [1]
    assert counts == [3, 3]


def test_masks_that_keep_everything_are_not_counted(counts: list[int]) -> None:
    prune_like(nn.Sequential(nn.Linear(30, 40), nn.ReLU(), nn.Linear(40, 20)), "ThresNet", 0.8, torch.randn(4, 30))
    assert set(counts) == {30 * 40, 40 * 20}
