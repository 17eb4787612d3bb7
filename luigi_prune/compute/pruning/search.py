"""The budget search: the level whose achieved size is nearest to the wanted one."""

from __future__ import annotations

from collections.abc import Callable

CLOSE_ENOUGH = 5e-4  # relative: a tenth of what is promised, reached by nearly every method in two or three tries
LONG = 4  # tries


def find_level(levels: int, cost: Callable[[int], float], size_at: Callable[[int], int], wanted: int) -> int:
    """Return the level in [0, levels) whose size is nearest to `wanted`.

    `size_at` is dear (it prunes) and grows with the level; `cost` is cheap and roughly proportional to it. Each try
    goes where the line through the two best tries so far, size over `cost`, meets `wanted`. Where that takes long,
    every other try halves the bracket.
    Ends when a size is within 0.05 %, or when two neighbouring levels enclose `wanted`. A size of 0, a network that
    fell apart, is taken only where there is no other.
    """
    sizes: dict[int, int] = {}
    low, high = -1, levels  # size(low) < wanted <= size(high), once tried
    while high - low > 1:
        halve = len(sizes) > LONG and len(sizes) % 2
        level = (low + high) // 2 if halve else _guess(low, high, cost, _cost_of(wanted, cost, sizes))
        sizes[level] = size = size_at(level)
        if abs(size - wanted) <= CLOSE_ENOUGH * wanted:
            return level
        low, high = (level, high) if size < wanted else (low, level)
    return min(sizes, key=lambda level: (sizes[level] == 0, abs(sizes[level] - wanted), level))


def _cost_of(wanted: int, cost: Callable[[int], float], sizes: dict[int, int]) -> float:
    """Return the cost at which the size should be `wanted`, judged by the two tries that came nearest to it."""
    best = sorted((level for level in sizes if sizes[level]), key=lambda level: abs(sizes[level] - wanted))[:2]
    if not best:
        return wanted
    if len(best) == 1 or sizes[best[0]] == sizes[best[1]]:
        return wanted * max(cost(best[0]), 1.0) / sizes[best[0]]
    share = (wanted - sizes[best[0]]) / (sizes[best[1]] - sizes[best[0]])
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


def _guess(low: int, high: int, cost: Callable[[int], float], wanted: float) -> int:
    """Return the level strictly between `low` and `high` whose cost is nearest to `wanted`."""
    first, last = low + 1, high - 1
    while first < last:
        middle = (first + last) // 2
        if cost(middle) < wanted:
            first = middle + 1
        else:
            last = middle
    if first - 1 > low and abs(cost(first - 1) - wanted) <= abs(cost(first) - wanted):
        return first - 1
    return first
