"""A selection that keeps as many units as one by draws, at a fraction of its time: for the search of a level."""

from __future__ import annotations

import torch
from torch import Tensor

from luigi_prune.compute.pruning.problem.records import LayerDraws, Mixed, Selected

GOLDEN = 0.6180339887  # multiples of it have fractional parts that lie far apart


def spread_evenly(score: Tensor, alive: Tensor, counts: Tensor | Mixed, draws: LayerDraws) -> Selected:
    """Return units at equal distances: of each row, or of those of a row whose score is positive or negative.

    `counts`: of shape (rows,) or (rows, 2), as in `top_and_sample.sample`, or two such tensors of which the sum counts.
    Rows start at different distances, so that no channel is left out by all filters. `draws` are not used.
    """
    numbers = counts.top + counts.sampled if isinstance(counts, Mixed) else counts
    rows, living = score.flatten(1), alive.flatten(1)
    start = torch.arange(len(rows), device=rows.device).mul(GOLDEN).frac()[:, None]
    kept = torch.zeros_like(living)
    for sign, column in zip((1, -1), numbers.view(len(rows), -1).to(rows.device).unbind(1), strict=False):
        some = living & (rows > 0 if sign > 0 else rows < 0) if numbers.dim() == 2 else living
        rank = some.cumsum(1, dtype=torch.float32)
        share = (column / rank[:, -1].clamp_min(1)).float()[:, None]
        kept |= some & (rank.mul_(share).add_(start).frac_() < share)
    return Selected(kept.view(score.shape))
