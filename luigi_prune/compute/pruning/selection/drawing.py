"""Draws with replacement: the number of draws for a number of distinct units, the drawn units, and their factors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from luigi_prune.compute.pruning.problem.records import DrawsPart

DrawsOf = Callable[[Tensor, Tensor], Tensor]  # (probabilities, target counts) -> numbers of draws
SINGLY = 512  # draws of a row that are made one by one, at least
IN_CACHE = 2**16  # numbers processed at a time in computations with many passes over them
IN_DEVICE = 2**24  # the same on a GPU, where small pieces have no advantage
GRAIN = 2.0**52  # parts of a probability when probabilities are summed as integers
MOST = 2.0**53  # draws of a row: larger integers are not exact
STEPS = 2**24  # random numbers in [0, 1) of single precision are multiples of 1 / STEPS
TABLE = 108  # numbers of draws from 1 to MOST, each larger than the one before by half


def draw(
    weights: Tensor, target_count: Tensor, draws: DrawsPart, spare_whole: bool, draws_of: DrawsOf | None
) -> tuple[Tensor, Tensor]:
    """Return which units of each row are kept, and their factors: (rows, units) both.

    `weights`: float64, not negative; probabilities are proportional to them. `target_count`: distinct units per row, on
    the same device. The other arguments are those of `top_and_sample.sample`. Random numbers are drawn on the CPU and
    moved, so that the same seed draws the same units on every device, except for rounding.
    """
    tiny = torch.finfo(torch.float64).tiny
    positive = weights.bool()
    support = positive.sum(1)
    total = weights.sum(1, keepdim=True).clamp_min(tiny)
    target_count = target_count.long()
    complete = target_count >= support if spare_whole else support == 0
    packing = Packing(positive, support, always_dense=weights.device.type != "cpu")
    probability = packing.pack(weights) / total
    drawn = (draws_of or draws_for_distinct)(probability, torch.minimum(target_count, (support - 1).clamp_min(1)))
    drawn[complete] = 0
    times = _count_draws(weights, total, probability, packing, drawn, draws)
    complete = complete | (times.count_nonzero(1) == support)
    factor = packing.unpack(times / probability.mul_(drawn[:, None]).clamp_min_(tiny))
    factor[complete] = positive[complete].double()
    return factor.bool(), factor


class Packing:
    """The positions of the positive numbers of rows, to compute with them alone: half, in rows of one sign.

    Packed rows hold the positive numbers in their order, then zeros; they are as long as the fullest row.
    """

    def __init__(self, positive: Tensor, support: Tensor, always_dense: bool = False) -> None:
        """`support`: how many numbers of each row are positive. `always_dense`: do not pack, which pays on a CPU."""
        rows, self._columns = positive.shape
        self._dense = always_dense or rows == 0 or int(support.min()) == self._columns
        if not self._dense:
            self._width = int(support.max())
            self._there = np.flatnonzero(positive.numpy())
            self._here = np.flatnonzero((torch.arange(self._width) < support[:, None]).numpy())

    def pack(self, rows: Tensor) -> Tensor:
        """Return rows packed."""
        return rows if self._dense else _moved(rows, self._there, self._here, self._width)

    def unpack(self, packed: Tensor) -> Tensor:
        """Return packed rows in their original layout, with zeros at the other positions."""
        return packed if self._dense else _moved(packed, self._here, self._there, self._columns)


def _moved(rows: Tensor, source: np.ndarray, target: np.ndarray, width: int) -> Tensor:
    """Return rows of width `width` with the entries at flat positions `source` moved to `target`, zeros elsewhere."""
    moved = rows.new_zeros(len(rows), width)
    moved.numpy().reshape(-1)[target] = rows.numpy().reshape(-1)[source]
    return moved


def _count_draws(
    weights: Tensor, total: Tensor, probability: Tensor, packing: Packing, drawn: Tensor, draws: DrawsPart
) -> Tensor:
    """Return how often each unit of each row is drawn, packed: row i is drawn from `drawn[i]` times.

    The first draws, at least as many as there are units, are made one by one. The rest, which only very uneven rows
    need, are Poisson processes, one per unit: for so many draws the two agree to a part in a thousand.
    """
    units = weights.shape[1]
    singly = max(SINGLY, units)
    draw_singly = _draw_singly if probability.device.type == "cpu" else draw_singly_by_tensors
    times = draw_singly(probability, drawn.clamp_max(singly), draws)
    far = torch.nonzero(drawn > singly).flatten()
    if far.numel():
        rate = weights[far] / total[far] * (drawn[far] - singly).double()[:, None]
        left = rate - draws.arrivals(units)[far.cpu()].to(rate.device)
        more = 1 + torch.poisson(left.clamp_min(0).cpu(), generator=draws.late).to(rate.device)
        later = torch.zeros_like(weights)
        later[far] = more.mul_(left > 0)
        times += packing.pack(later)
    return times


def _draw_singly(probability: Tensor, drawn: Tensor, draws: DrawsPart) -> Tensor:
    """Return how often each unit is among the first `drawn` draws of its row: (rows, units).

    A draw is a random number between 0 and the sum of the row; it selects the first unit whose cumulative sum exceeds
    it. Random numbers are multiples of 2^-24, so every sum has a least multiple that does not select its unit; draws
    and sums are sorted together as integers, even ones for sums, several times as fast as floats in double precision.
    """
    rows, units = probability.shape
    most = int(drawn.max()) if rows else 0
    if not most:
        return torch.zeros(rows, units, dtype=torch.float64)
    line = torch.empty(rows, units + most, dtype=torch.int32)
    torch.mul(_least_beyond(probability.cumsum(1)), 2, out=line[:, :units])
    points = line[:, units:].copy_(draws.rows(most).T * (2 * STEPS)).bitwise_or_(1)
    if int(drawn.min()) < most:
        points.masked_fill_(torch.arange(most) >= drawn[:, None], torch.iinfo(torch.int32).max)
    numbers = line.numpy()
    numbers.sort(axis=1)
    places = np.flatnonzero((numbers & 1) == 0).reshape(rows, units) - np.arange(units)
    places -= (units + most) * np.arange(rows)[:, None]  # points below each sum
    return torch.from_numpy(np.diff(places, axis=1, prepend=0).astype(np.float64))


def _least_beyond(cumulative: Tensor) -> Tensor:
    """Return per cumulative sum the least k for which the draw k / STEPS, times the last sum of the row, reaches it.

    The last bit of both is ignored. int32, of the shape of the sums.
    """
    last = cumulative[:, -1:]
    least = (cumulative * (STEPS / last)).nan_to_num_(0).floor_()
    sums = cumulative.view(torch.int64) >> 1  # numbers that are not negative have the order of their bits
    for _ in range(2):  # the quotient is rounded
        least += ((least / STEPS).mul_(last).view(torch.int64) >> 1) < sums
    return least.int()


def draw_singly_by_tensors(probability: Tensor, drawn: Tensor, draws: DrawsPart) -> Tensor:
    """Return the result of `_draw_singly` on any device; units differ if a sum is rounded to a random number.

    The sums are integer multiples of 2^-52: exact in any order, whereas sums of floats on a GPU are not reproducible.
    """
    most = int(drawn.max()) if len(drawn) else 0
    if not most:
        return torch.zeros_like(probability)
    cumulative = (probability * GRAIN).round().long().cumsum(1)
    numbers = draws.rows(most).to(probability.device, non_blocking=True).T.contiguous()
    points = numbers.double() * cumulative[:, -1:].double()
    beyond = torch.arange(most, device=points.device) >= drawn[:, None]
    points = points.long().masked_fill_(beyond, torch.iinfo(torch.int64).max).sort(dim=1).values
    below = torch.searchsorted(points, cumulative)  # points below each sum
    return torch.cat([below[:, :1], below.diff(dim=1)], dim=1).double()


def expected_distinct(probability: Tensor, drawn: Tensor) -> Tensor:
    """Return per row the expected number of distinct units in `drawn` draws with replacement: float64, (rows,)."""
    return -torch.expm1(drawn.double()[:, None] * torch.log1p(-probability.clamp(max=1 - 1e-16))).sum(1)


def draws_for_distinct(probability: Tensor, target_count: Tensor) -> Tensor:
    """Return per row the least number m of draws whose expected distinct count reaches `target_count`.

    If `target_count` is at most 1, m is `target_count`. For unequal probabilities it is the largest with ceil(E(m)) =
    target_count (SiPP, 1910.05422).
    """
    target_count = target_count.long()
    drawn = target_count.clone()
    several = torch.nonzero(target_count > 1).flatten()
    if not several.numel():
        return drawn
    rows, goal = probability[several], target_count[several].double()
    support = (rows > 0).sum(1)
    equal = rows.amax(1) * support < 1 + 1e-9
    size = support[equal].double()
    solved = torch.zeros_like(goal)
    solved[equal] = torch.ceil(torch.log1p(-goal[equal] / size) / torch.log1p(-1 / size) - 1e-9)
    if not bool(equal.all()):
        solved[~equal] = most_draws(rows[~equal], goal[~equal])
    drawn[several] = solved.long()
    return drawn


def solve_draws(probability: Tensor, goal: Tensor, *, close: float = 1e-3, start: Tensor | None = None) -> Tensor:
    """Return per row the real number m of draws with E(m) = goal, from below; goal is less than the support.

    Newton's method on log(support - E(m)), which is convex in m, so that no step overshoots, except back from a `start`
    that is too large. A step shorter than `close` is the last; the remaining error is of the order of its square.
    """
    counted = probability > 0
    chance = _log_of_no_draw(probability, counted)
    support = counted.sum(1).to(goal)
    missing = torch.log(support - goal)
    least = torch.log1p(-goal / support) / torch.log1p(-1 / support)  # the number for equal probabilities
    least = least.nan_to_num(0).maximum(goal)
    if not least.numel():
        return least
    m = least if start is None else start.maximum(least)
    for number in range(200):
        unseen = (m[:, None] * chance).exp_()
        total = unseen.sum(1)
        step = ((torch.log(total) - missing) * total / -(unseen.mul_(chance)).sum(1)).nan_to_num(0)
        step = step if number == 0 and start is not None else step.clamp_min(0)
        m = (m + step).maximum(least).clamp_max(MOST)
        if float(torch.where(m < MOST, step.abs(), 0).max()) < close:
            break
    return m


def solve_many(probability: Tensor, goals: Tensor, *, memory: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield results of `solve_draws` for one row and many goals, as (goals, draws) of some at a time.

    Each starts near its solution, from a table. `probability`: float64, (units,), all positive; `memory`: in bytes.
    """
    chance = _log_of_no_draw(probability, probability > 0)
    draws = torch.logspace(0, math.log2(MOST), TABLE, base=2, dtype=torch.float64, device=probability.device)
    missing = torch.cat([(some[:, None] * chance).exp_().sum(1) for some in draws.split(8)])
    table = missing.clamp_min(torch.finfo(torch.float64).tiny).log().flip(0).numpy(), draws.log().flip(0).numpy()
    for some in goals.split(max(1, memory // (8 * len(probability)))):
        start = torch.from_numpy(np.interp(np.log(len(probability) - some.numpy()), *table)).exp()
        yield some, solve_draws(probability.expand(len(some), -1), some, start=start)


def _log_of_no_draw(probability: Tensor, counted: Tensor) -> Tensor:
    """Return the logarithm of the probability that one draw is not the unit; as if certain if it is not `counted`."""
    never = torch.finfo(probability.dtype).min  # exp(m x never) and its product with `never` are both 0
    return torch.where(counted, torch.log1p(-probability.clamp(max=1 - 1e-16)), never)


def most_draws(probability: Tensor, goal: Tensor) -> Tensor:
    """Return per row the largest integer m with E(m) <= goal: float64, (rows,)."""
    draws = [torch.zeros_like(goal[:0])]
    piece = IN_CACHE if probability.device.type == "cpu" else IN_DEVICE
    rows_at_once = max(1, piece // max(1, probability.shape[1]))
    for rows, goals in zip(probability.split(rows_at_once), goal.split(rows_at_once), strict=True):
        low = solve_draws(rows, goals, close=0.1).floor()  # one too few at most
        draws.append(torch.where(expected_distinct(rows, low + 1) <= goals, low + 1, low))
    return torch.cat(draws)
