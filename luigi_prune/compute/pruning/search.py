"""The budget search: the level whose achieved size is nearest to the wanted one."""

from __future__ import annotations

from collections.abc import Callable

CLOSE_ENOUGH = 5e-4  # relative: a tenth of what is promised, reached by nearly every method in two or three tries


def find_level(levels: int, cost: Callable[[int], float], size_at: Callable[[int], int], wanted: int) -> int:
    """Return the level in [0, levels) whose size is nearest to `wanted`.

    `size_at` is dear (it prunes) and grows with the level; `cost` is cheap and roughly proportional to it. Each try
    goes where `cost`, interpolated between what the tries so far achieved, meets `wanted`, or halves the bracket where
    that is slow.
    Ends when a size is within 0.05 %, or when two neighbouring levels enclose `wanted`. A size of 0, a network that
    fell apart, is taken only where there is no other.
    """
    sizes: dict[int, int] = {}
    low, high = -1, levels  # size(low) < wanted <= size(high), once tried
    slow = 0
    while high - low > 1:
        width = high - low
        middle = (low + high) // 2
        level = middle if slow > 1 else _guess(low, high, cost, _cost_of(wanted, low, high, cost, sizes))
        sizes[level] = size = size_at(level)
        if abs(size - wanted) <= CLOSE_ENOUGH * wanted:
            return level
        if size < wanted:
            low = level
        else:
            high = level
        slow = slow + 1 if high - low > width / 2 else 0
    return min(sizes, key=lambda level: (sizes[level] == 0, abs(sizes[level] - wanted), level))


def _cost_of(wanted: int, low: int, high: int, cost: Callable[[int], float], sizes: dict[int, int]) -> float:
    """Return the cost at which the size should be `wanted`, judged by the tries at the ends of the bracket."""
    ends = [level for level in (low, high) if sizes.get(level)]
    if not ends:
        return wanted
    if len(ends) == 1:
        return wanted * max(cost(ends[0]), 1.0) / sizes[ends[0]]
    share = (wanted - sizes[low]) / max(sizes[high] - sizes[low], 1)
    return cost(low) + share * (cost(high) - cost(low))


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
