"""The allocation by one multiplier against a convex solver, and draws with replacement."""

from __future__ import annotations

import itertools

import pytest
import torch

from luigi_prune.compute.pruning.allocations.sampling_error import allocate_samples, sampling_error
from luigi_prune.compute.pruning.problem.records import LayerDraws
from luigi_prune.compute.pruning.selection.drawing import MOST, _draw_singly, expected_distinct, solve_draws, solve_many


@pytest.mark.parametrize("budget", [30.0, 150.0, 400.0])
def test_the_mean_error_is_the_least_that_a_convex_solver_finds(budget: float) -> None:
    cvxpy = pytest.importorskip("cvxpy")
    generator = torch.Generator().manual_seed(0)
    alpha = torch.rand(24, generator=generator, dtype=torch.float64) * 900 + 20
    weight = torch.where(torch.arange(24) < 16, 1 / 8, 1 / 4).double()
    most = torch.randint(1, 40, (24,), generator=generator).double()
    ours = allocate_samples(alpha, weight, most, budget)
    assert float(ours.sum()) == pytest.approx(min(budget, float(most.sum())), rel=1e-6)
    assert bool(((ours >= 0) & (ours <= most)).all())
    # Solved for m, the error's formula reads m = a (1 / (3 e) + 1 / (2 e^2)), which is convex in e.
    error = cvxpy.Variable(24, pos=True)
    needed = cvxpy.multiply(alpha.numpy(), cvxpy.inv_pos(error) / 3 + cvxpy.power(error, -2) / 2)
    least = sampling_error(alpha / most).numpy()
    problem = cvxpy.Problem(
        cvxpy.Minimize(weight.numpy() @ error), [cvxpy.sum(needed) <= float(ours.sum()), error >= least]
    )
    problem.solve(solver=cvxpy.CLARABEL)
    assert float((weight * sampling_error(alpha / ours)).sum()) == pytest.approx(problem.value, rel=1e-5)


def test_samples_are_monotone_in_the_budget() -> None:
    alpha, weight = torch.tensor([10.0, 500.0, 3.0]).double(), torch.ones(3).double()
    most = torch.tensor([5.0, 9.0, 0.0]).double()
    found = [allocate_samples(alpha, weight, most, budget) for budget in range(16)]
    assert all(bool((b >= a - 1e-9).all()) for a, b in itertools.pairwise(found))
    assert torch.equal(found[14], most)
    assert torch.equal(found[0], torch.zeros(3).double())


@pytest.mark.parametrize("power", [0, 1, 8, 60])
def test_numbers_of_draws_for_all_goals_are_those_for_one(power: int) -> None:
    chance = torch.rand(40, generator=torch.Generator().manual_seed(power), dtype=torch.float64) ** power
    chance /= chance.sum()
    goals = torch.arange(1, 30, dtype=torch.float64)
    pieces = list(solve_many(chance, goals, memory=8 * 40 * 7))
    assert torch.equal(torch.cat([some for some, _ in pieces]), goals)
    draws = torch.cat([solved for _, solved in pieces])
    assert torch.allclose(draws, solve_draws(chance.expand(29, -1), goals), rtol=1e-6)
    exact = draws < MOST
    assert torch.allclose(expected_distinct(chance.expand(29, -1), draws)[exact], goals[exact], rtol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (6, 300)])
def test_draws_are_the_units_whose_sums_the_random_numbers_reach(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    weights = (torch.rand(shape, generator=generator, dtype=torch.float64) * 8).floor()  # draws meet sums exactly
    weights[0] += 1
    probability = weights / weights.sum(1, keepdim=True).clamp_min(1)
    drawn = torch.where(weights.any(1), torch.randint(1, 900, shape[:1], generator=generator), 0)
    part = next(LayerDraws(torch.Generator().manual_seed(1), shape[0]).parts([slice(None)]))
    times = _draw_singly(probability, drawn, part)
    sums = probability.cumsum(1)
    for row, count in enumerate(drawn.tolist()):
        points = part.rows(count)[:, row].double() * sums[row, -1]
        units = (points[:, None] >= sums[row]).sum(1)
        assert torch.equal(times[row], torch.bincount(units, minlength=shape[1])[: shape[1]].double())
