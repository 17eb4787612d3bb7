"""Selection with the reference's number of draws (`rules="reference"`), for comparison only.

Reconstructed from its re-weighted weights: all 2,819 sampled rows of the golden results that determine it agree.
"""

from __future__ import annotations

import torch
from torch import Tensor

from luigi_prune.compute.pruning.problem.records import LayerDraws, Mixed, Selected, Selection
from luigi_prune.compute.pruning.selection.drawing import most_draws
from luigi_prune.compute.pruning.selection.top_and_sample import SELECTIONS, mixed, sample

LEAST_PROBABILITY = float(torch.finfo(torch.float32).eps)  # smaller probabilities count as zero


def draws_by_bisection(probability: Tensor, target_count: Tensor) -> Tensor:
    """Return per row the number m of draws on which the reference's search for ceil(E(m)) = n ends: int64, (rows,).

    n is `target_count`, at most one less than the support. The search starts from the number for equal probabilities,
    rounded down, doubles it until E(m) > n - 1, and then bisects down to the start; it evaluates E at the integer part
    of each real number. If all rows have equal probabilities (UniNet), m is the least with E(m) >= n instead.
    `probability`: float64, (rows, units).
    """
    counted = torch.where(probability > LEAST_PROBABILITY, probability, torch.zeros_like(probability))
    support = (counted > 0).sum(1)
    goal = torch.minimum(target_count.long(), (support - 1).clamp_min(1))
    drawn = goal.clone()
    many = torch.nonzero(goal > 1).flatten()
    if many.numel():
        rows, goals, size = counted[many], goal[many].double(), support[many].double()
        even = torch.log1p(-goals / size) / torch.log1p(-1 / size)
        if bool((rows.amax(1) * size < 1 + 1e-9).all()):
            drawn[many] = torch.ceil(even - 1e-9).long()
        else:
            drawn[many] = _bisect(even.floor(), most_draws(rows, goals - 1) + 1, most_draws(rows, goals)).long()
    return drawn


def _bisect(start: Tensor, least: Tensor, most: Tensor) -> Tensor:
    """Return the first integer in [least, most] that the search from `start` reaches."""
    high = start.clone()
    while bool((short := high.floor() < least).any()):
        high[short] *= 2
    low, middle = start.clone(), high.clone()
    while bool((missed := (middle.floor() < least) | (middle.floor() > most)).any()):
        above = middle.floor() > most
        high = torch.where(missed & above, middle, high)
        low = torch.where(missed & ~above, middle, low)
        middle = torch.where(missed, (low + high) / 2, middle)
    return middle.floor()


def sample_always(score: Tensor, alive: Tensor, counts: Tensor, draws: LayerDraws) -> Selected:
    """Sample like `top_and_sample.sample`, but also rows that should keep all units, which then lose one."""
    return sample(score, alive, counts, draws, spare_whole=False, draws_of=draws_by_bisection)


def mixed_always(score: Tensor, alive: Tensor, counts: Mixed, draws: LayerDraws) -> Selected:
    """Select like `top_and_sample.mixed`, with the reference's number of draws."""
    return mixed(score, alive, counts, draws, draws_of=draws_by_bisection)


REFERENCE_SELECTIONS: dict[str, Selection] = {**SELECTIONS, "sample": sample_always, "mixed": mixed_always}
