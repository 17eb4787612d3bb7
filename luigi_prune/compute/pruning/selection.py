"""Selection: which units stay when it is known how many. The best, or some drawn by score and re-weighed."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from luigi_prune.compute.pruning.protocol import Draws, Mixed, Selected, Selection
from luigi_prune.compute.zeros import count_true

DrawsOf = Callable[[Tensor, Tensor], Tensor]  # probabilities and wanted numbers to numbers of draws
SINGLY = 512  # draws of a row that are made one by one, at least
SAMPLED = 2**12  # numbers that bracket a rank
IN_CACHE = 2**16  # numbers that are computed with at a time, where that takes many passes over them
MOST = 2.0**53  # draws of a row: beyond, whole numbers are not exact


def top(score: Tensor, alive: Tensor, counts: Tensor, draws: Draws) -> Selected:
    """Return the `counts` best living units of the layer (shape ()) or of each of its rows (shape (rows,)).

    Equal scores: the first unit wins.
    """
    rows = int(counts.numel()) if counts.dim() else 1
    flat = living_scores(score, alive).reshape(rows, -1)
    if rows == 1:
        kept = _best(flat[0], min(int(counts), count_true(alive)))[None]
    else:
        rank = torch.empty_like(flat, dtype=torch.long)
        order = flat.argsort(dim=1, descending=True, stable=True)
        rank.scatter_(1, order, torch.arange(flat.shape[1], device=flat.device).expand_as(order))
        kept = rank < torch.minimum(counts.to(flat.device), alive.reshape(rows, -1).sum(1))[:, None]
    return Selected(kept.reshape(score.shape))


def living_scores(score: Tensor, alive: Tensor) -> Tensor:
    """Return float32 scores, minus infinity for units that are not `alive`."""
    score = score.float()
    return score if count_true(alive) == alive.numel() else torch.where(alive, score, -torch.inf)


def _best(score: Tensor, count: int) -> Tensor:
    """Return a mask of the `count` largest numbers of a vector, by partition: a sort would cost many times that."""
    if count <= 0:
        return torch.zeros_like(score, dtype=torch.bool)
    values = score.cpu().numpy()  # it compares many times as fast as torch
    threshold = np.float32(kth_largest(values, count))
    kept = values > threshold
    ties = np.flatnonzero(values == threshold)
    kept[ties[: count - int(np.count_nonzero(kept))]] = True
    return torch.from_numpy(kept).to(score.device)


def kth_largest(values: np.ndarray, k: int) -> float:
    """Return the k-th largest number of a vector, 1 <= k: of a long one, a sample says which few have to be sorted."""
    rank = k
    if values.size > 64 * SAMPLED:
        some = np.sort(values[:: values.size // SAMPLED])
        place = (1 - k / values.size) * len(some)
        slack = 4 * math.sqrt(len(some))
        low, high = some[max(0, int(place - slack))], some[min(len(some) - 1, int(place + slack))]
        between = values[np.flatnonzero((values >= low) & (values <= high))]
        above = int(np.count_nonzero(values > high))
        if above < k <= above + between.size:
            values, rank = between, k - above
    return float(np.partition(values, values.size - rank)[values.size - rank])


def sample(
    score: Tensor,
    alive: Tensor,
    counts: Tensor,
    draws: Draws,
    *,
    spare_whole: bool = True,
    draws_of: DrawsOf | None = None,
) -> Selected:
    """Return units drawn with replacement, so often that about `counts` distinct ones come, and their factors.

    Probabilities p are proportional to the score among living units of the layer (`counts` of shape ()), of each row
    (`counts` of shape (rows,)) or of those of each row whose score is positive or negative (shape (rows, 2)).
    A unit drawn k times of m has factor k / (m p): the expected weight is the weight. Where as many are wanted as live
    (`spare_whole`), or where nothing would be dropped, the row stays as it is. `draws_of` says m where it is not
    `draws_for_distinct` (the reference's rules).
    """
    rows, wanted = _rows(score, alive, counts).cpu(), counts.reshape(-1).cpu()
    kept, factor = _draw(rows, wanted, draws, spare_whole=spare_whole, draws_of=draws_of)
    return Selected(_fold(kept, counts, score), _fold(factor, counts, score))


def mixed(score: Tensor, alive: Tensor, counts: Mixed, draws: Draws, *, draws_of: DrawsOf | None = None) -> Selected:
    """Return the best `counts.top` units of each row for certain and `counts.sampled` drawn from the rest."""
    rows = _rows(score, alive, counts.top)
    best = _best_of_rows(rows, counts.top.reshape(-1).to(rows.device))
    rest, wanted = rows.masked_fill(best, 0).cpu(), counts.sampled.reshape(-1).cpu()
    drawn, factor = _draw(rest, wanted, draws, spare_whole=True, draws_of=draws_of)
    best = best.cpu()
    return Selected(
        _fold(best | drawn, counts.top, score),
        _fold(torch.where(best, torch.ones_like(factor), factor), counts.top, score),
    )


def _rows(score: Tensor, alive: Tensor, counts: Tensor) -> Tensor:
    """Return scores as float64 (rows, units), a row per count, none negative; all equal in rows that score nothing."""
    living = alive.double()
    if counts.dim() == 2:
        signed = score.double().flatten(1)
        rows = torch.stack([signed.clamp_min(0), (-signed).clamp_min(0)], dim=1).flatten(0, 1)
        return rows * living.flatten(1).repeat_interleave(2, dim=0)
    shape = (int(counts.numel()), -1)
    rows = (score.double() * living).reshape(shape)
    return torch.where(rows.sum(1, keepdim=True) == 0, living.reshape(shape), rows)


def _fold(rows: Tensor, counts: Tensor, like: Tensor) -> Tensor:
    """Return what `_rows` unfolded in the scores' shape and place: a mask, or factors of their kind."""
    if counts.dim() == 2:
        pairs = rows.view(len(like), 2, -1)
        rows = pairs.any(1) if rows.dtype == torch.bool else pairs.sum(1)
    return rows.reshape(like.shape).to(like.device if rows.dtype == torch.bool else like)


def _best_of_rows(rows: Tensor, counts: Tensor) -> Tensor:
    """Return the mask of the `counts` largest numbers of each row, among those above 0."""
    rank = torch.empty_like(rows, dtype=torch.long)
    order = rows.argsort(dim=1, descending=True, stable=True)
    rank.scatter_(1, order, torch.arange(rows.shape[1], device=rows.device).expand_as(order))
    return (rank < counts[:, None]) & (rows > 0)


def _draw(
    weights: Tensor, wanted: Tensor, draws: Draws, *, spare_whole: bool, draws_of: DrawsOf | None
) -> tuple[Tensor, Tensor]:
    """Return which units of each row are kept, and their factors: (rows, units) both."""
    tiny = torch.finfo(torch.float64).tiny
    positive = weights > 0
    support = positive.sum(1)
    probability = weights / weights.sum(1, keepdim=True).clamp_min(tiny)
    wanted = wanted.long()
    whole = wanted >= support if spare_whole else support == 0
    packed, filled = pack(probability)
    drawn = (draws_of or draws_for_distinct)(packed, torch.minimum(wanted, (support - 1).clamp_min(1)))
    drawn[whole] = 0
    times = _count_draws(probability, packed, filled, drawn, draws)
    kept = (times > 0) | (whole[:, None] & positive)
    whole = whole | (kept == positive).all(1)
    factor = times / (drawn[:, None] * probability).clamp_min(tiny)
    return kept, torch.where(whole[:, None], positive.double(), factor)


def pack(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the positive numbers of each row in their order, then zeros, and the mask of where the former are.

    Both have as many columns as the fullest row has positive numbers. Rows of one sign are half zeros.
    """
    positive = rows > 0
    support = positive.sum(1)
    width = int(support.max()) if support.numel() else 0
    filled = torch.arange(width, device=rows.device) < support[:, None]
    return rows.new_zeros(filled.shape).masked_scatter_(filled, rows[positive]), filled


def _count_draws(probability: Tensor, packed: Tensor, filled: Tensor, drawn: Tensor, draws: Draws) -> Tensor:
    """Return how often each unit of each row is drawn: row i is drawn from `drawn[i]` times. Shape as `probability`.

    The first draws, at least as many as there are units, are made one by one. Of the rest, which only very uneven rows
    want, every unit has its own Poisson process: so far out the two agree to a part in a thousand.
    """
    units = probability.shape[1]
    singly = max(SINGLY, units)
    times = torch.zeros_like(probability)
    times[probability > 0] = _draw_singly(packed, drawn.clamp_max(singly), draws)[filled]
    far = torch.nonzero(drawn > singly).flatten()
    if far.numel():
        rate = probability[far] * (drawn[far] - singly).double()[:, None]
        left = rate - draws.arrivals(units)[far]
        more = 1 + torch.poisson(left.clamp_min(0), generator=draws.another(1))
        times[far] += torch.where(left > 0, more, torch.zeros_like(more))
    return times


def _draw_singly(probability: Tensor, drawn: Tensor, draws: Draws) -> Tensor:
    rows, units = probability.shape
    most = int(drawn.max()) if rows else 0
    if not most:
        return torch.zeros(rows, units, dtype=torch.float64)
    numbers = draws.rows(most)
    found = []
    together = max(1, 4 * IN_CACHE // units)
    for first in range(0, rows, together):
        part = slice(first, first + together)
        cumulative = probability[part].cumsum(1)
        last = units - 1 - (probability[part] > 0).flip(1).int().argmax(1)  # rounding must not reach past the support
        point = numbers[: int(drawn[part].max()), part].T.double() * cumulative[:, -1:]
        unit = torch.searchsorted(cumulative, point.contiguous(), right=True).minimum(last[:, None])
        counted = torch.arange(point.shape[1])[None] < drawn[part, None]
        flat = (unit + torch.arange(len(unit))[:, None] * units)[counted]
        found.append(torch.bincount(flat, minlength=cumulative.numel()).view_as(cumulative).double())
    return torch.cat(found)


def expected_distinct(probability: Tensor, drawn: Tensor) -> Tensor:
    """Return per row the expected number of distinct units in `drawn` draws with replacement: float64, (rows,)."""
    return -torch.expm1(drawn.double()[:, None] * torch.log1p(-probability.clamp(max=1 - 1e-16))).sum(1)


def draws_for_distinct(probability: Tensor, wanted: Tensor) -> Tensor:
    """Return per row the least number m of draws whose expected distinct count reaches `wanted` (at most 1: `wanted`).

    For unequal probabilities it is the largest with ceil(E(m)) = wanted (SiPP, 1910.05422).
    """
    wanted = wanted.long()
    drawn = wanted.clone()
    open_rows = torch.nonzero(wanted > 1).flatten()
    if not open_rows.numel():
        return drawn
    rows, goal = probability[open_rows], wanted[open_rows].double()
    support = (rows > 0).sum(1)
    equal = rows.amax(1) * support < 1 + 1e-9
    size = support[equal].double()
    solved = torch.zeros_like(goal)
    solved[equal] = torch.ceil(torch.log1p(-goal[equal] / size) / torch.log1p(-1 / size) - 1e-9)
    if not bool(equal.all()):
        solved[~equal] = most_draws(rows[~equal], goal[~equal])
    drawn[open_rows] = solved.long()
    return drawn


def solve_draws(probability: Tensor, goal: Tensor, *, close: float = 1e-3) -> Tensor:
    """Return per row the real number m of draws with E(m) = goal, from below; goal is less than the support.

    Newton's method on log(support - E(m)), which is convex in m, so that it never overshoots. A step
    shorter than `close` is the last; what it leaves is of the order of its square.
    """
    counted = probability > 0
    never = torch.finfo(probability.dtype).min  # exp(m x never) and its product with `never` are both 0
    chance = torch.where(counted, torch.log1p(-probability.clamp(max=1 - 1e-16)), never)
    support = counted.sum(1).to(goal)
    missing = torch.log(support - goal)
    m = torch.log1p(-goal / support) / torch.log1p(-1 / support)  # what even chances take: no others take less
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
    """Return per row the largest whole m with E(m) <= goal: float64, (rows,)."""
    found = [torch.zeros_like(goal[:0])]
    together = max(1, IN_CACHE // max(1, probability.shape[1]))
    for rows, wanted in zip(probability.split(together), goal.split(together), strict=True):
        low = solve_draws(rows, wanted, close=0.1).floor()  # one too few at most
        found.append(torch.where(expected_distinct(rows, low + 1) <= wanted, low + 1, low))
    return torch.cat(found)


SELECTIONS: dict[str, Selection] = {"top": top, "sample": sample, "mixed": mixed}
