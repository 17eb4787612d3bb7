"""The size of a network as if its layers were a plain chain: the cost by which filter methods allocate."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from luigi_prune.compute.pruning.problem.granularity import GRANULARITIES
from luigi_prune.compute.pruning.problem.layers import groups_of
from luigi_prune.compute.pruning.problem.records import Problem
from luigi_prune.compute.zeros import counts_true


def feature_chain(problem: Problem, granularity: str) -> Callable[[list[int]], float]:
    """Return the number of kept weights of a plain chain of the layers, as a function of the units that they keep.

    A pruned filter removes one input feature of the next layer, in one of its groups; a pruned channel one filter of
    the previous layer.
    """
    masks = [problem.kept(layer) for layer in problem.layers]
    filters = counts_true(GRANULARITIES["filter"].alive(mask) for mask in masks)
    channels = counts_true(GRANULARITIES["channel"].alive(mask) for mask in masks)
    groups = [groups_of(layer.module) for layer in problem.layers]
    kernels = [mask[0, 0].numel() if mask.numel() else 0 for mask in masks]

    def size(counts: list[int]) -> float:
        rows: Sequence[float]
        columns: Sequence[float]
        if granularity == "filter":
            lost = [0, *(old - new for old, new in zip(filters, counts, strict=True))][:-1]
            rows, columns = (
                counts,
                [max(0, old - fewer / g) for old, fewer, g in zip(channels, lost, groups, strict=True)],
            )
        else:
            lost = [*(old - new for old, new in zip(channels, counts, strict=True)), 0][1:]
            rows, columns = (
                [max(0, old - fewer / g) for old, fewer, g in zip(filters, lost, groups, strict=True)],
                counts,
            )
        return float(sum(f * c * k for f, c, k in zip(rows, columns, kernels, strict=True)))

    return size
