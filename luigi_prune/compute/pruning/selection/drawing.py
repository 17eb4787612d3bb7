"""Draws with replacement: the number of draws for a number of distinct units, the drawn units, and their factors."""

from __future__ import annotations

from collections.abc import Callable

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
    it. Draws and cumulative sums are sorted together; the last bit distinguishes them.
    """
    rows, units = probability.shape
    most = int(drawn.max()) if rows else 0
    if not most:
        return torch.zeros(rows, units, dtype=torch.float64)
    cumulative = probability.cumsum(1)
    last = cumulative[:, -1:].clone()
    points = draws.rows(most).T.double() * last
    if int(drawn.min()) < most:
        points[torch.arange(most) >= drawn[:, None]] = torch.inf
    line = np.empty((rows, units + most))
    line[:, :units], line[:, units:] = cumulative.numpy(), points.numpy()
    bits = line.view(np.int64)
    bits[:, :units] &= ~1
    bits[:, units:] |= 1
    bits.sort(axis=1)  # numbers that are not negative have the order of their bits
    places = np.flatnonzero((bits & 1) == 0).reshape(rows, units) - np.arange(units)
    places -= (units + most) * np.arange(rows)[:, None]  # points below each sum
    return torch.from_numpy(np.diff(places, axis=1, prepend=0).astype(np.float64))


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


def solve_draws(probability: Tensor, goal: Tensor, *, close: float = 1e-3) -> Tensor:
    """Return per row the real number m of draws with E(m) = goal, from below; goal is less than the support.

    Newton's method on log(support - E(m)), which is convex in m, so that it never overshoots. A step
    shorter than `close` is the last; the remaining error is of the order of its square.
    """
    counted = probability > 0
    never = torch.finfo(probability.dtype).min  # exp(m x never) and its product with `never` are both 0
    chance = torch.where(counted, torch.log1p(-probability.clamp(max=1 - 1e-16)), never)
    support = counted.sum(1).to(goal)
    missing = torch.log(support - goal)
    m = torch.log1p(-goal / support) / torch.log1p(-1 / support)  # the number for equal probabilities, a lower bound
    m = m.nan_to_num(0).maximum(goal)
    if not m.numel():
        return m
    for _ in range(200):
        unseen = (m[:, None] * chance).exp_()
        total = unseen.sum(1)
        step = (torch.log(total) - missing) * total / -(unseen.mul_(chance)).sum(1)
        m = (m + step.clamp_min(0).nan_to_num(0)).clamp_max(MOST)
        if float(torch.where(m < MOST, step.nan_to_num(0), 0).max()) < close:
            break
    return m


def most_draws(probability: Tensor, goal: Tensor) -> Tensor:
    """Return per row the largest integer m with E(m) <= goal: float64, (rows,)."""
    draws = [torch.zeros_like(goal[:0])]
    piece = IN_CACHE if probability.device.type == "cpu" else IN_DEVICE
    rows_at_once = max(1, piece // max(1, probability.shape[1]))
    for rows, goals in zip(probability.split(rows_at_once), goal.split(rows_at_once), strict=True):
        low = solve_draws(rows, goals, close=0.1).floor()  # one too few at most
        draws.append(torch.where(expected_distinct(rows, low + 1) <= goals, low + 1, low))
    return torch.cat(draws)
