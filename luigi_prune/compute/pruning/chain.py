"""The size of a network whose layers, in order, are taken for a plain chain: what filter methods allocate by."""

from __future__ import annotations

from collections.abc import Callable

from luigi_prune.compute.pruning.granularity import GRANULARITIES
from luigi_prune.compute.pruning.protocol import Problem
from luigi_prune.compute.zeros import counts_true


def feature_chain(problem: Problem, granularity: str) -> Callable[[list[int]], float]:
    """Return how many weights stay if the layers, in order, were a plain chain, as a function of the units they keep.

    Filters that go take as many input features of the next layer with them, channels as many filters of the layer
    before.
    """
    masks = [problem.kept(layer) for layer in problem.layers]
    filters = counts_true(GRANULARITIES["filter"].alive(mask) for mask in masks)
    channels = counts_true(GRANULARITIES["channel"].alive(mask) for mask in masks)
    kernels = [mask[0, 0].numel() if mask.numel() else 0 for mask in masks]

    def size(counts: list[int]) -> float:
        if granularity == "filter":
            lost = [0, *(old - new for old, new in zip(filters, counts, strict=True))][:-1]
            rows, columns = counts, [max(0, old - gone) for old, gone in zip(channels, lost, strict=True)]
        else:
            lost = [*(old - new for old, new in zip(channels, counts, strict=True)), 0][1:]
            rows, columns = [max(0, old - gone) for old, gone in zip(filters, lost, strict=True)], counts
        return float(sum(f * c * k for f, c, k in zip(rows, columns, kernels, strict=True)))

    return size
