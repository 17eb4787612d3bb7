"""The budget search on step functions, and how seldom it asks."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from luigi_prune.compute.pruning.engine.budget_search import CLOSE_ENOUGH, find_level, level_at_budget


def counting(sizes: list[int]) -> tuple[Callable[[int], int], list[int]]:
    asked: list[int] = []

    def size_at(level: int) -> int:
        asked.append(level)
        return sizes[level]

    return size_at, asked


@given(
    steps=st.lists(st.integers(0, 400), min_size=1, max_size=200), wanted=st.integers(0, 40_000), tilt=st.floats(0.2, 5)
)
def test_it_finds_the_nearest_of_any_monotone_sizes(steps: list[int], wanted: int, tilt: float) -> None:
    sizes = [sum(steps[: i + 1]) + 1 for i in range(len(steps))]
    size_at, _ = counting(sizes)
    level = find_level(len(sizes), lambda at: (at + 1.0) ** tilt, size_at, wanted)
    nearest = min(abs(size - wanted) for size in sizes)
    assert abs(sizes[level] - wanted) <= max(nearest, CLOSE_ENOUGH * wanted)


def test_it_asks_seldom_where_cost_tells_nearly_all() -> None:
    sizes = [100 + level - level // 7 for level in range(1_000_000)]
    size_at, asked = counting(sizes)
    level = find_level(len(sizes), float, size_at, 400_000)
    assert abs(sizes[level] - 400_000) <= 200
    assert len(asked) <= 4


def test_it_asks_once_if_the_first_level_is_right() -> None:
    size_at, asked = counting([100 + level - level // 7 for level in range(1_000)])
    assert find_level(1_000, float, size_at, 529, first=500) == 500
    assert asked == [500]
    assert find_level(1_000, float, size_at, 700, first=500) in (699, 700)  # and goes on from it if not
    assert asked[1] == 500


def test_it_asks_seldom_at_a_cliff() -> None:
    sizes = [0 if level < 123_456 else 500_000 + level for level in range(1_000_000)]
    size_at, asked = counting(sizes)
    assert find_level(len(sizes), float, size_at, 10_000) == 123_456  # a network that fell apart is no answer
    assert len(asked) <= 60
    size_at, _ = counting([0, 0, 0])
    assert find_level(3, float, size_at, 10) in (0, 1, 2)


def test_level_at_a_budget_is_the_highest_that_fits() -> None:
    costs = [3.0, 5.0, 5.0, 9.0]
    at = [level_at_budget(4, lambda level: costs[level], budget) for budget in (1, 3, 5, 8, 9, 100)]
    assert at == [0, 0, 2, 2, 3, 3]
