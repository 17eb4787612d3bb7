"""Allocations: how many units each layer keeps at each level. A new one is a function and an entry in ALLOCATIONS."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from luigi_prune.compute.pruning.allocations.sampling_error import (
    channel_complexity,
    channel_complexity_top,
    filter_error,
    filter_hybrid,
)
from luigi_prune.compute.pruning.problem.granularity import GRANULARITIES
from luigi_prune.compute.pruning.problem.records import Allocation, Choice, Levels, Problem, Scores
from luigi_prune.compute.pruning.selection.top_and_sample import kth_largest, living_scores
from luigi_prune.compute.pruning.structure.feature_chain import feature_chain
from luigi_prune.compute.zeros import counts_true


def global_top(problem: Problem, scores: Scores, granularity: str) -> Levels:
    """Return levels that keep the best units over all layers, one more per level, and at least one of every layer."""
    alive = [problem.kept(layer) for layer in problem.layers]
    living = counts_true(alive)
    vectors = [living_scores(score, kept).flatten() for score, kept in zip(scores, alive, strict=True)]
    on_cpu = all(vector.device.type == "cpu" for vector in vectors)
    rank = _ranks([vector.numpy() for vector in vectors]) if on_cpu else ranks_by_tensors(vectors)

    def choose(level: int) -> list[Choice]:
        if level <= 0:
            return [torch.tensor(min(1, count)) for count in living]
        above, equal = rank(level)
        ties = level - sum(above)
        counts: list[Choice] = []
        for count, same, most in zip(above, equal, living, strict=True):
            taken = min(ties, same)
            ties -= taken
            counts.append(torch.tensor(max(count + taken, min(1, most))))
        return counts

    return Levels(sum(living) + 1, choose, cost=float)


# Of the k-th largest number of all vectors together: how many numbers of each vector are above it, and how many are it.
_Rank = Callable[[int], tuple[list[int], list[int]]]


def _ranks(vectors: list[np.ndarray]) -> _Rank:
    def rank(k: int) -> tuple[list[int], list[int]]:
        threshold = kth_largest(vectors, k)
        above = [int(np.count_nonzero(vector > threshold)) for vector in vectors]
        ties = k - sum(above)
        equal = []
        for vector in vectors:  # counted until there are enough
            equal.append(int(np.count_nonzero(vector == threshold)) if ties > 0 else 0)
            ties -= equal[-1]
        return above, equal

    return rank


def ranks_by_tensors(vectors: list[Tensor]) -> _Rank:
    """Return what `_ranks` returns, for vectors on a device: a rank costs one wait."""
    descending = torch.cat(vectors).sort(descending=True).values

    def rank(k: int) -> tuple[list[int], list[int]]:
        threshold = descending[k - 1]
        counts = [((vector > threshold).sum(), (vector == threshold).sum()) for vector in vectors]
        above, equal = torch.stack([each for pair in counts for each in pair]).view(-1, 2).T.tolist()
        return above, equal

    return rank


def uniform_filter(problem: Problem, scores: Scores, granularity: str) -> Levels:
    """Return levels at which every filter keeps the same fraction of its living entries, rounded down, at least one."""
    entries = [problem.kept(layer).flatten(1).sum(1).cpu() for layer in problem.layers]
    total = int(sum(int(count.sum()) for count in entries))
    sizes = sorted({int(size) for count in entries for size in count.unique()} - {0})
    # Budgets at which a filter of some size keeps one more entry: between two of them nothing changes.
    steps = sorted({-(-kept * total // size) for size in sizes for kept in range(1, size + 1)}) or [0]

    def choose(level: int) -> list[Choice]:
        return [torch.maximum(steps[level] * count // total, count.clamp(max=1)) for count in entries]

    return Levels(len(steps), choose, cost=lambda level: float(steps[level]))


def uniform(problem: Problem, scores: Scores, granularity: str) -> Levels:
    """Return levels v at which every layer keeps round(v x living units), at least one, of filters or channels.

    Layers whose units may not be pruned (`Granularity.fixed`) keep all of them.
    """
    unit = GRANULARITIES[granularity]
    units = counts_true(unit.alive(problem.kept(layer)) for layer in problem.layers)
    fixed = [unit.fixed(layer) for layer in problem.layers]
    prunable = sorted({count for count, is_fixed in zip(units, fixed, strict=True) if not is_fixed})
    # Fractions at which round() gives some layer one more unit, in whole numbers: (2 kept - 1) / (2 units).
    steps = sorted({(2 * kept - 1) / (2 * count) for count in prunable for kept in range(1, count + 1)}) or [1.0]

    def counts(level: int) -> list[int]:
        fraction = steps[level] + 1e-9
        rounded = [max(min(1, count), int(fraction * count + 0.5)) for count in units]
        return [count if is_fixed else fewer for count, fewer, is_fixed in zip(units, rounded, fixed, strict=True)]

    def choose(level: int) -> list[Choice]:
        return [torch.tensor(count) for count in counts(level)]

    size = feature_chain(problem, granularity)
    return Levels(len(steps), choose, lambda level: size(counts(level)))


ALLOCATIONS: dict[str, Allocation] = {
    "global_top": global_top,
    "uniform_filter": uniform_filter,
    "uniform": uniform,
    "filter_error": filter_error,
    "filter_hybrid": filter_hybrid,
    "channel_complexity": channel_complexity,
    "channel_complexity_top": channel_complexity_top,
}
