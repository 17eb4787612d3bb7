"""The reference's budget search, replayed: what it does with other seeds than the one whose steps are recorded.

Given the sizes of its recorded steps it takes the same steps in all golden cells.
"""

from __future__ import annotations

from collections.abc import Callable

from scipy.optimize import brentq

from luigi_prune.compute.pruning.engine.budget_search import level_at_budget
from luigi_prune.compute.pruning.problem.records import Levels

TOLERANCE = 0.005  # relative, for its first try and where it stops
STEP = 5e-3  # of Brent's search: absolute and relative


def search(size_at: Callable[[float], int], original: int, ratio: float) -> int:
    """Return the size that the search for `ratio` returns; `size_at` a tried ratio prunes, its last call is the result.

    A method that draws does so at every call: the result is a new draw at the ratio that the search ended with.
    """
    seen: dict[float, float] = {}
    sizes: list[int] = []

    def missed_by(tried: float) -> float:
        if tried not in seen:
            sizes.append(size_at(tried))
            off = sizes[-1] / original - ratio
            seen[tried] = 0.0 if abs(off) < TOLERANCE * ratio else off
        return seen[tried]

    first = missed_by(ratio)
    if first == 0:
        return sizes[0]
    other = max(ratio, 0.999) if first < 0 else 0.4 * ratio
    if first * missed_by(other) > 0:
        found = min(seen, key=lambda tried: abs(seen[tried]))
    else:
        found = brentq(missed_by, min(ratio, other), max(ratio, other), xtol=STEP, rtol=STEP, maxiter=20, disp=False)
    return size_at(found)


def level_where_it_ends(levels: Levels, granularity: str, budget: float, *, drawn: bool) -> int:
    """Return the level of an allocation at `budget`: Brent's search on a step ends on its side nearer to the budget."""
    last = levels.count - (2 if drawn else 1)  # at the last all stays as it is; the reference still draws
    level = min(level_at_budget(levels.count, levels.cost, budget), last)
    if granularity == "weight" or level == last:
        return level
    return level + (abs(levels.cost(level + 1) - budget) < abs(levels.cost(level) - budget))
