"""The budget search: the level whose achieved size is nearest to the target size."""

from __future__ import annotations

from collections.abc import Callable

CLOSE_ENOUGH = 5e-4  # relative: a tenth of the promised tolerance, reached by nearly every method in two or three tries
LONG = 4  # tries, after which every other one bisects


def find_level(
    levels: int,
    cost: Callable[[int], float],
    size_at: Callable[[int], int],
    target_size: int,
    first: int | None = None,
) -> int:
    """Return the level in [0, levels) whose size is nearest to `target_size`.

    `size_at` is expensive (it prunes) and grows with the level; `cost` is cheap and roughly proportional to it. Each
    try is the level at which the line through the two best tries so far, size over `cost`, reaches `target_size`. If
    that takes long, every other try halves the bracket. Ends when a size is within 0.05 %, or when two neighbouring
    levels enclose `target_size`. A size of 0, a network without weights, is returned only if there is no other.
    `first`: the level to try first.
    """
    sizes: dict[int, int] = {}
    low, high = -1, levels  # size(low) < target_size <= size(high), once tried
    while high - low > 1:
        halve = len(sizes) > LONG and len(sizes) % 2
        if not sizes and first is not None:
            level = first
        else:
            level = (low + high) // 2 if halve else _guess(low, high, cost, _cost_of(target_size, cost, sizes))
        sizes[level] = size = size_at(level)
        if abs(size - target_size) <= CLOSE_ENOUGH * target_size:
            return level
        low, high = (level, high) if size < target_size else (low, level)
    return min(sizes, key=lambda level: (sizes[level] == 0, abs(sizes[level] - target_size), level))


def _cost_of(target_size: int, cost: Callable[[int], float], sizes: dict[int, int]) -> float:
    """Return the cost at which the size should be `target_size`, extrapolated from the two nearest tries."""
    best = sorted((level for level in sizes if sizes[level]), key=lambda level: abs(sizes[level] - target_size))[:2]
    if not best:
        return target_size
    if len(best) == 1 or sizes[best[0]] == sizes[best[1]]:
        return target_size * max(cost(best[0]), 1.0) / sizes[best[0]]
    share = (target_size - sizes[best[0]]) / (sizes[best[1]] - sizes[best[0]])
    return cost(best[0]) + share * (cost(best[1]) - cost(best[0]))


def level_at_budget(levels: int, cost: Callable[[int], float], budget: float) -> int:
    """Return the highest level in [0, levels) that costs at most `budget` before propagation, or else the lowest."""
    first, last = 0, levels - 1
    while first < last:
        middle = (first + last + 1) // 2
        if cost(middle) <= budget:
            first = middle
        else:
            last = middle - 1
    return first


def _guess(low: int, high: int, cost: Callable[[int], float], target_cost: float) -> int:
    """Return the level strictly between `low` and `high` whose cost is nearest to `target_cost`."""
    first, last = low + 1, high - 1
    while first < last:
        middle = (first + last) // 2
        if cost(middle) < target_cost:
            first = middle + 1
        else:
            last = middle
    if first - 1 > low and abs(cost(first - 1) - target_cost) <= abs(cost(first) - target_cost):
        return first - 1
    return first
