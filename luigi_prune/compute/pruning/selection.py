"""Selection: which units stay when it is known how many. The best, or some drawn by score and re-weighed."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from luigi_prune.compute.pruning.protocol import Draws, Selected, Selection


def top(score: Tensor, alive: Tensor, counts: Tensor, draws: Draws) -> Selected:
    """Return the `counts` best living units of the layer (shape ()) or of each of its rows (shape (rows,)).

    Equal scores: the first unit wins.
    """
    rows = int(counts.numel()) if counts.dim() else 1
    flat = torch.where(alive, score.float(), -torch.inf).reshape(rows, -1)
    wanted = torch.minimum(counts.reshape(rows).to(flat.device), alive.reshape(rows, -1).sum(1))
    if rows == 1:
        kept = _best(flat[0], int(wanted))[None]
    else:
        rank = torch.empty_like(flat, dtype=torch.long)
        order = flat.argsort(dim=1, descending=True, stable=True)
        rank.scatter_(1, order, torch.arange(flat.shape[1], device=flat.device).expand_as(order))
        kept = rank < wanted[:, None]
    return Selected(kept.reshape(score.shape))


def _best(score: Tensor, count: int) -> Tensor:
    """Return a mask of the `count` largest numbers of a vector, by partition: a sort would cost many times that."""
    if count <= 0:
        return torch.zeros_like(score, dtype=torch.bool)
    values = score.cpu().numpy()
    threshold = float(np.partition(values, values.size - count)[values.size - count])
    kept = score > threshold
    ties = torch.nonzero(score == threshold).flatten()
    kept[ties[: count - int(kept.sum())]] = True
    return kept


def sample(score: Tensor, alive: Tensor, counts: Tensor, draws: Draws) -> Selected:
    """Return units drawn with replacement, so often that about `counts` distinct ones come, and their factors.

    Probabilities p are proportional to the score among living units of the layer (`counts` of shape ()) or of each row.
    A unit drawn k times of m has factor k / (m p): the expected weight is the weight. Where as many are wanted as live,
    or where nothing would be dropped, the row stays as it is.
    """
    rows = int(counts.numel()) if counts.dim() else 1
    weights = (score.double() * alive).reshape(rows, -1).cpu()
    weights[weights.sum(1) == 0] = alive.reshape(rows, -1).double().cpu()[weights.sum(1) == 0]
    support = (weights > 0).sum(1)
    total = weights.sum(1, keepdim=True)
    probability = weights / total.clamp_min(torch.finfo(torch.float64).tiny)
    wanted = counts.reshape(rows).cpu().long()
    whole = wanted >= support
    drawn = draws_for_distinct(probability, torch.minimum(wanted, (support - 1).clamp_min(0)))
    drawn[whole] = 0
    times = _count_draws(probability, drawn, draws)
    kept = (times > 0) | (whole[:, None] & (weights > 0))
    whole |= (kept == (weights > 0)).all(1)
    factor = times / (drawn[:, None] * probability).clamp_min(torch.finfo(torch.float64).tiny)
    factor = torch.where(whole[:, None], torch.ones_like(factor), factor)
    return Selected(kept.reshape(score.shape).to(score.device), factor.reshape(score.shape).to(score))


def _count_draws(probability: Tensor, drawn: Tensor, draws: Draws) -> Tensor:
    """Return how often each unit of each row is drawn: row i is drawn from `drawn[i]` times. Shape as `probability`."""
    rows, units = probability.shape
    most = int(drawn.max()) if rows else 0
    if not most:
        return torch.zeros(rows, units, dtype=torch.float64)
    cumulative = probability.cumsum(1)
    last = units - 1 - (probability > 0).flip(1).int().argmax(1)  # rounding must not reach past the support
    numbers = draws.rows(most).T.contiguous()  # (rows, draws)
    point = numbers.double() * cumulative[:, -1:]
    unit = torch.searchsorted(cumulative, point, right=True).clamp_(max=units - 1).minimum(last[:, None])
    counted = torch.arange(most)[None] < drawn[:, None]
    flat = (unit + torch.arange(rows)[:, None] * units)[counted]
    return torch.bincount(flat, minlength=rows * units).view(rows, units).double()


def expected_distinct(probability: Tensor, drawn: Tensor) -> Tensor:
    """Return per row the expected number of distinct units in `drawn` draws with replacement: float64, (rows,)."""
    return -torch.expm1(drawn.double()[:, None] * torch.log1p(-probability.clamp(max=1 - 1e-16))).sum(1)


def draws_for_distinct(probability: Tensor, wanted: Tensor) -> Tensor:
    """Return per row the least number m of draws whose expected distinct count reaches `wanted` (at most 1: `wanted`).

    For unequal probabilities it is one that does not pass it: ceil(E(m)) = wanted (methods' papers: SiPP, 1910.05422).
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
        solved[~equal] = _bisect_draws(rows[~equal], goal[~equal])
    drawn[open_rows] = solved.long()
    return drawn


def _bisect_draws(probability: Tensor, goal: Tensor) -> Tensor:
    """Return the largest whole m per row with E(m) <= goal."""
    low, high = goal.clone(), goal * 2
    while bool((short := expected_distinct(probability, high) <= goal).any()) and float(high.max()) < 2**52:
        high[short] *= 2
    while bool((high - low > 1).any()):
        middle = ((low + high) / 2).floor()
        below = expected_distinct(probability, middle) <= goal
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return low


SELECTIONS: dict[str, Selection] = {"top": top, "sample": sample}
