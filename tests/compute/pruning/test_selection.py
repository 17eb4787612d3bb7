"""Selections: the best, and draws that are unbiased, as many as wanted, and nested."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from luigi_prune.compute.pruning.problem.records import LayerDraws, Mixed
from luigi_prune.compute.pruning.selection import top_and_sample
from luigi_prune.compute.pruning.selection.drawing import Packing, _draw_singly, draws_for_distinct, expected_distinct
from luigi_prune.compute.pruning.selection.even_spread import spread_evenly
from luigi_prune.compute.pruning.selection.top_and_sample import best_of_rows, mixed, sample, top


def draws(seed: int = 0, columns: int = 1) -> LayerDraws:
    return LayerDraws(torch.Generator().manual_seed(seed), columns)


def test_top_of_a_layer_and_of_every_row() -> None:
    score = torch.tensor([[4.0, 1.0, 3.0], [9.0, 8.0, 7.0]])
    alive = torch.tensor([[True, True, True], [False, True, True]])
    assert top(score, alive, torch.tensor(3), draws()).kept.tolist() == [[True, False, False], [False, True, True]]
    rows = top(score, alive, torch.tensor([1, 5]), draws())
    assert rows.kept.tolist() == [[True, False, False], [False, True, True]]
    assert not bool(top(score, alive, torch.tensor(0), draws()).kept.any())


def test_the_first_of_equal_units_wins() -> None:
    score, alive = torch.ones(5), torch.ones(5, dtype=torch.bool)
    assert top(score, alive, torch.tensor(2), draws()).kept.tolist() == [True, True, False, False, False]
    rows = top(score[None].expand(2, 5), alive.expand(2, 5), torch.tensor([1, 3]), draws())
    assert rows.kept.sum(1).tolist() == [1, 3]
    assert bool(rows.kept[:, 0].all())


def test_number_of_draws_for_equal_probabilities_is_the_least() -> None:
    for size in (2, 9, 64, 4608):
        wanted = torch.arange(2, size, max(1, size // 7))
        probability = torch.full((len(wanted), size), 1 / size, dtype=torch.float64)
        m = draws_for_distinct(probability, wanted)
        closed = torch.tensor([math.log(1 - int(n) / size) / math.log(1 - 1 / size) for n in wanted])
        assert torch.equal(m, torch.ceil(closed - 1e-6).long())
        assert bool((expected_distinct(probability, m) >= wanted - 1e-6).all())
        assert bool((expected_distinct(probability, m - 1) < wanted).all())


def test_number_of_draws_for_unequal_probabilities() -> None:
    weights = torch.rand(20, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64) ** 3
    probability = weights / weights.sum(1, keepdim=True)
    wanted = torch.arange(2, 22)
    m = draws_for_distinct(probability, wanted)
    expected = expected_distinct(probability, m)
    assert torch.equal(torch.ceil(expected - 1e-9).long(), wanted)
    assert bool((expected_distinct(probability, m + 1) > wanted).all())
    assert draws_for_distinct(probability[:2], torch.tensor([0, 1])).tolist() == [0, 1]


def test_samples_are_unbiased_and_of_the_wanted_size() -> None:
    score = torch.rand(1, 12, generator=torch.Generator().manual_seed(1)) + 0.2
    alive = torch.ones(1, 12, dtype=torch.bool)
    alive[0, 3] = False
    results = [sample(score, alive, torch.tensor([6]), draws(seed)) for seed in range(2000)]
    factors = torch.stack([r.factor for r in results if r.factor is not None])
    assert torch.equal(factors > 0, torch.stack([r.kept for r in results]))
    assert not bool(factors[:, 0, 3].any())
    error = 3.5 * factors.std(0) / math.sqrt(len(factors))
    assert bool(((factors.mean(0) - alive.float()).abs() <= error + 1e-6).all())
    m = draws_for_distinct((score * alive / (score * alive).sum()).double(), torch.tensor([6]))
    expected = float(expected_distinct((score * alive / (score * alive).sum()).double(), m))
    assert float((factors > 0).sum(2).double().mean()) == pytest.approx(expected, abs=0.1)


def test_more_draws_hold_the_fewer() -> None:
    score, alive = torch.rand(8, 40, generator=torch.Generator().manual_seed(2)), torch.ones(8, 40, dtype=torch.bool)
    shared = draws(5, columns=8)
    previous = torch.zeros_like(alive)
    for wanted in (1, 2, 5, 20, 33, 39):
        kept = sample(score, alive, torch.full((8,), wanted), shared).kept
        assert bool((kept | ~previous).all())
        previous = kept
    again = sample(score, alive, torch.full((8,), 20), draws(5, columns=8)).kept
    assert torch.equal(again, sample(score, alive, torch.full((8,), 20), shared).kept)


def test_what_loses_nothing_keeps_its_weights() -> None:
    score, alive = torch.ones(2, 4), torch.tensor([[True, True, True, True], [True, False, False, False]])
    result = sample(score, alive, torch.tensor([4, 1]), draws(0, 2))
    assert result.factor is not None
    assert torch.equal(result.kept, alive)
    assert torch.equal(result.factor, alive.float())


def rows_of(seed: int, rows: int, columns: int, zeros: float) -> torch.Tensor:
    """Return rows of few different numbers, some of them zero; the first number of each is not."""
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randint(1, 5, (rows, columns), generator=generator).double()
    numbers[torch.rand(rows, columns, generator=generator) < zeros] = 0
    numbers[:, 0] = 1
    return numbers


SHAPES = {"rows": st.integers(1, 9), "columns": st.integers(1, 30), "zeros": st.floats(0, 1)}


@given(seed=st.integers(0, 99), **SHAPES)
def test_best_of_rows_is_what_a_stable_sort_finds(seed: int, rows: int, columns: int, zeros: float) -> None:
    scores = rows_of(seed, rows, columns, zeros)
    counts = torch.randint(0, columns + 1, (rows,), generator=torch.Generator().manual_seed(seed))
    order = scores.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    assert torch.equal(best_of_rows(scores, counts), order < counts[:, None])


@given(seed=st.integers(0, 99), **SHAPES)
def test_packed_rows_hold_all_that_is_positive_and_unpack(seed: int, rows: int, columns: int, zeros: float) -> None:
    scores = rows_of(seed, rows, columns, zeros)
    packing = Packing(scores > 0, (scores > 0).sum(1))
    packed = packing.pack(scores)
    assert [row[row > 0].tolist() for row in packed] == [row[row > 0].tolist() for row in scores]
    assert packed.shape[1] == int((scores > 0).sum(1).max())
    assert not bool((packed[:, 1:] > 0).logical_and(packed[:, :-1] == 0).any())  # zeros only behind
    assert torch.equal(packing.unpack(packed), scores)


@given(seed=st.integers(0, 99), **SHAPES)
def test_each_draw_falls_where_its_number_lies(seed: int, rows: int, columns: int, zeros: float) -> None:
    scores = rows_of(seed, rows, columns, zeros)
    probability = Packing(scores > 0, (scores > 0).sum(1)).pack(scores / scores.sum(1, keepdim=True))
    drawn = torch.randint(0, 3 * columns, (rows,), generator=torch.Generator().manual_seed(seed))
    (part,) = draws(seed, rows).parts([slice(None)])
    times = _draw_singly(probability, drawn, part)
    cumulative = probability.cumsum(1)
    expected = torch.zeros_like(probability)
    for row, numbers in enumerate(draws(seed, rows).rows(int(drawn.max())).T.double()):
        points = numbers[: drawn[row]] * cumulative[row, -1]
        for unit in torch.searchsorted(cumulative[row], points, right=True):
            expected[row, unit] += 1
    assert torch.equal(times, expected)
    assert bool((times[probability == 0] == 0).all())


@pytest.mark.parametrize("sides", [1, 2])
@pytest.mark.parametrize("power", [1, 8])  # 8: some rows need so many draws that the last ones are not made singly
def test_parts_change_nothing(monkeypatch: pytest.MonkeyPatch, sides: int, power: int) -> None:
    score = torch.randn(7, 40, generator=torch.Generator().manual_seed(3)) ** power
    score = score if sides == 2 else score.abs()
    alive = torch.rand(7, 40, generator=torch.Generator().manual_seed(4)) < 0.9
    counts = torch.randint(1, 12, (7, 2) if sides == 2 else (7,), generator=torch.Generator().manual_seed(5))
    both = Mixed(counts // 2, counts - counts // 2)
    whole = [sample(score, alive, counts, draws(1, 7 * sides)), mixed(score, alive, both, draws(1, 7 * sides))]
    monkeypatch.setattr(top_and_sample, "IN_CACHE", 2 * 40 * sides)
    parts = [sample(score, alive, counts, draws(1, 7 * sides)), mixed(score, alive, both, draws(1, 7 * sides))]
    for one, other in zip(whole, parts, strict=True):
        assert torch.equal(one.kept, other.kept)
        assert one.factor is not None
        assert other.factor is not None
        assert torch.equal(one.factor, other.factor)
        assert bool(one.kept.any())


@pytest.mark.parametrize("sides", [1, 2])
def test_units_at_equal_distances_are_as_many_as_asked_for_and_leave_out_no_column(sides: int) -> None:
    seeded = torch.Generator().manual_seed(sides)
    score, alive = torch.randn(40, 7, 3, generator=seeded), torch.rand(40, 7, 3, generator=seeded) < 0.9
    score = score if sides == 2 else score.abs()
    groups = [alive & (score > 0), alive & (score < 0)][:sides]
    support = torch.stack([group.flatten(1).sum(1) for group in groups], 1)
    counts = (torch.rand(40, sides, generator=seeded) * (support + 1)).long().minimum(support)
    target = counts if sides == 2 else counts[:, 0]
    kept = spread_evenly(score, alive, target, LayerDraws(seeded, target.numel())).kept
    found = torch.stack([(kept & group).flatten(1).sum(1) for group in groups], 1)
    assert torch.equal(found, counts)
    assert bool(kept.any(0).all())
    mixed = Mixed(target // 3, target - target // 3)
    assert torch.equal(spread_evenly(score, alive, mixed, LayerDraws(seeded, target.numel())).kept, kept)
