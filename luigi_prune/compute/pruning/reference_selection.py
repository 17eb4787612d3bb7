"""Selection as the reference does it (`rules="reference"`): its number of draws. For comparison only.

Found from the factors of its weights: all 2,819 sampled rows of the golden results that tell it have this number.
"""

from __future__ import annotations

import torch
from torch import Tensor

from luigi_prune.compute.pruning.drawing import most_draws
from luigi_prune.compute.pruning.protocol import Draws, Mixed, Selected, Selection
from luigi_prune.compute.pruning.selection import SELECTIONS, mixed, sample

SEEN = float(torch.finfo(torch.float32).eps)  # smaller probabilities do not count as support


def draws_by_bisection(probability: Tensor, wanted: Tensor) -> Tensor:
    """Return per row the number m of draws on which the reference's search for ceil(E(m)) = n ends: int64, (rows,).

    n is `wanted`, at most one less than the support. The search begins with what equal probabilities would take,
    rounded down, doubles until E(m) > n - 1, and then halves the range back to where it began; of each real number it
    looks at the whole part. Where all rows have equal probabilities (UniNet), m is the least with E(m) >= n instead.
    `probability`: float64, (rows, units).
    """
    seen = torch.where(probability > SEEN, probability, torch.zeros_like(probability))
    support = (seen > 0).sum(1)
    goal = torch.minimum(wanted.long(), (support - 1).clamp_min(1))
    drawn = goal.clone()
    many = torch.nonzero(goal > 1).flatten()
    if many.numel():
        rows, goals, size = seen[many], goal[many].double(), support[many].double()
        even = torch.log1p(-goals / size) / torch.log1p(-1 / size)
        if bool((rows.amax(1) * size < 1 + 1e-9).all()):
            drawn[many] = torch.ceil(even - 1e-9).long()
        else:
            drawn[many] = _bisect(even.floor(), most_draws(rows, goals - 1) + 1, most_draws(rows, goals)).long()
    return drawn


def _bisect(start: Tensor, least: Tensor, most: Tensor) -> Tensor:
    """Return the first whole number in [least, most] that the search from `start` meets."""
    high = start.clone()
    while bool((short := high.floor() < least).any()):
        high[short] *= 2
    low, at = start.clone(), high.clone()
    while bool((missed := (at.floor() < least) | (at.floor() > most)).any()):
        above = at.floor() > most
        high = torch.where(missed & above, at, high)
        low = torch.where(missed & ~above, at, low)
        at = torch.where(missed, (low + high) / 2, at)
    return at.floor()


def sample_always(score: Tensor, alive: Tensor, counts: Tensor, draws: Draws) -> Selected:
    """Return what `selection.sample` does, but a row of which all is wanted is sampled, too: one distinct unit less."""
    return sample(score, alive, counts, draws, spare_whole=False, draws_of=draws_by_bisection)


def mixed_always(score: Tensor, alive: Tensor, counts: Mixed, draws: Draws) -> Selected:
    """Return what `selection.mixed` does, with the reference's number of draws."""
    return mixed(score, alive, counts, draws, draws_of=draws_by_bisection)


REFERENCE_SELECTIONS: dict[str, Selection] = {**SELECTIONS, "sample": sample_always, "mixed": mixed_always}
