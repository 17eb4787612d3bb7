"""Calibration batches merged into fewer, larger ones."""

from __future__ import annotations

from typing import Any

from luigi_prune.compute.network_inputs import Inputs, form, join, sample_count
from luigi_prune.compute.pruning.problem.records import Batches

LARGEST_BATCH = 128


def merge_batches(batches: Batches, largest: int = LARGEST_BATCH) -> Batches:
    """Return the same samples in fewer batches of at most `largest`: in evaluation mode samples do not interact."""
    merged: Batches = []
    held: list[tuple[Inputs, Any]] = []

    def flush() -> None:
        if held:
            merged.append((join([x for x, _ in held]), join([y for _, y in held])))
            held.clear()

    for inputs, targets in batches:
        same = not held or all(form(one) == form(other) for one, other in zip(held[0], (inputs, targets), strict=True))
        if not same or sum(sample_count(x) for x, _ in held) + sample_count(inputs) > largest:
            flush()
        held.append((inputs, targets))
    flush()
    return merged
