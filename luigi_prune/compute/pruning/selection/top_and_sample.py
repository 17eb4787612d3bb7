"""Selection: the units that are kept, given their number: the best, or units drawn by score and re-weighted."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from luigi_prune.compute.pruning.problem.records import DrawsPart, LayerDraws, Mixed, Selected, Selection
from luigi_prune.compute.pruning.selection.drawing import IN_CACHE, DrawsOf, draw
from luigi_prune.compute.zeros import count_true

SAMPLED = 2**12  # sampled numbers that bracket a rank


def top(score: Tensor, alive: Tensor, counts: Tensor, draws: LayerDraws) -> Selected:
    """Return the `counts` best living units of the layer (shape ()) or of each of its rows (shape (rows,)).

    Equal scores: the first unit wins.
    """
    rows = int(counts.numel()) if counts.dim() else 1
    flat = living_scores(score, alive).reshape(rows, -1)
    if rows == 1 and score.device.type != "cpu":
        kept = best_by_tensors(flat[0], int(counts))[None] & alive.reshape(1, -1)  # living units are not counted
    elif rows == 1:
        kept = _best(flat[0], min(int(counts), count_true(alive)))[None]
    else:
        most = alive.reshape(rows, -1).sum(1)
        kept = best_of_rows(flat, torch.minimum(counts.to(flat.device, non_blocking=True), most))
    return Selected(kept.reshape(score.shape))


def living_scores(score: Tensor, alive: Tensor) -> Tensor:
    """Return float32 scores, or float64 ones as they are, with minus infinity for units that are not `alive`."""
    score = score if score.dtype == torch.float64 else score.float()
    if score.device.type == "cpu" and count_true(alive) == alive.numel():
        return score
    return torch.where(alive, score, -torch.inf)


def _best(score: Tensor, count: int) -> Tensor:
    """Return a mask of the `count` largest numbers of a vector, by partition, which is many times as fast as a sort."""
    if count <= 0:
        return torch.zeros_like(score, dtype=torch.bool)
    values = score.numpy()  # numpy compares many times as fast as torch
    threshold = values.dtype.type(kth_largest([values], count))
    kept = values > threshold
    ties = np.flatnonzero(values == threshold)
    kept[ties[: count - int(np.count_nonzero(kept))]] = True
    return torch.from_numpy(kept)


def best_by_tensors(score: Tensor, count: int) -> Tensor:
    """Return the result of `_best` on any device, without a synchronisation."""
    if count <= 0:
        return torch.zeros_like(score, dtype=torch.bool)
    threshold = score.topk(min(count, len(score)), sorted=False).values.amin()  # `kthvalue` is not deterministic
    kept, ties = score > threshold, score == threshold
    return kept | (ties & (ties.cumsum(0) <= count - kept.sum()))


def kth_largest(vectors: list[np.ndarray], k: int) -> float:
    """Return the k-th largest number of all vectors, 1 <= k: of many numbers, a sample brackets the few to sort."""
    size = sum(vector.size for vector in vectors)
    if size > 64 * SAMPLED:
        step = size // SAMPLED
        some = np.sort(np.concatenate([vector[::step] for vector in vectors]))
        place = (1 - k / size) * len(some)
        slack = 4 * math.sqrt(len(some))
        low, high = some[max(0, int(place - slack))], some[min(len(some) - 1, int(place + slack))]
        between = [vector[np.flatnonzero((vector >= low) & (vector <= high))] for vector in vectors]
        above = sum(int(np.count_nonzero(vector > high)) for vector in vectors)
        count = sum(vector.size for vector in between)
        if above < k <= above + count:
            vectors, k, size = between, k - above, count
    values = np.concatenate(vectors)
    return float(np.partition(values, size - k)[size - k])


def best_of_rows(rows: Tensor, counts: Tensor) -> Tensor:
    """Return the mask of the `counts` largest numbers of each row; the first of equal ones.

    On a CPU numpy sorts numbers many times as fast as any argsort.
    """
    if rows.device.type != "cpu":
        return best_of_rows_by_tensors(rows, counts)
    values, target_counts = rows.numpy(), counts.numpy()
    columns = values.shape[1]
    place = np.clip(columns - target_counts, 0, columns - 1)[:, None]
    threshold = np.take_along_axis(np.sort(values, axis=1), place, axis=1)
    kept = (values > threshold) & (target_counts > 0)[:, None]
    missing = target_counts - np.count_nonzero(kept, axis=1)
    ties = values == threshold
    if (np.count_nonzero(ties, axis=1) != missing).any():
        ties &= np.cumsum(ties, axis=1) <= missing[:, None]
    return torch.from_numpy(kept | ties)


def best_of_rows_by_tensors(rows: Tensor, counts: Tensor) -> Tensor:
    """Return the result of `best_of_rows` on any device, without a synchronisation."""
    columns = rows.shape[1]
    place = (columns - counts).clamp(0, columns - 1)[:, None]
    threshold = rows.sort(dim=1).values.gather(1, place)
    kept, ties = (rows > threshold) & (counts > 0)[:, None], rows == threshold
    return kept | (ties & (ties.cumsum(1) <= (counts - kept.sum(1))[:, None]))


def sample(
    score: Tensor,
    alive: Tensor,
    counts: Tensor,
    draws: LayerDraws,
    *,
    spare_whole: bool = True,
    draws_of: DrawsOf | None = None,
) -> Selected:
    """Return units drawn with replacement until about `counts` distinct ones are expected, and their factors.

    Probabilities p are proportional to the score among living units of the layer (`counts` of shape ()), of each row
    (`counts` of shape (rows,)) or of those of each row whose score is positive or negative (shape (rows, 2)).
    A unit drawn k times of m has factor k / (m p): the expected weight is the weight. A row that keeps all living units
    (with `spare_whole`), or of which no unit is dropped, is unchanged. `draws_of` returns m instead of
    `draws_for_distinct` (the reference's rules).
    """
    kept, factor = torch.empty_like(score, dtype=torch.bool), torch.empty_like(score)
    for part, numbers in _parts(score, counts, draws, whole=draws_of is not None):
        target_count = counts[part] if counts.dim() else counts
        rows = _rows(score[part], alive[part], target_count)
        row_counts = target_count.reshape(-1).to(rows.device, non_blocking=True)
        drawn, weight = draw(rows, row_counts, numbers, spare_whole, draws_of)
        kept[part], factor[part] = _fold(drawn, target_count, score[part]), _fold(weight, target_count, score[part])
    return Selected(kept, factor)


def mixed(
    score: Tensor, alive: Tensor, counts: Mixed, draws: LayerDraws, *, draws_of: DrawsOf | None = None
) -> Selected:
    """Return the best `counts.top` units of each row for certain and `counts.sampled` drawn from the rest."""
    kept, factor = torch.empty_like(score, dtype=torch.bool), torch.empty_like(score)
    for part, numbers in _parts(score, counts.top, draws, whole=draws_of is not None):
        top, sampled = ((each[part] if each.dim() else each) for each in (counts.top, counts.sampled))
        rows = _rows(score[part], alive[part], top)
        best = best_of_rows(rows, top.reshape(-1).to(rows.device)) & rows.bool()
        drawn, weight = draw(rows * ~best, sampled.reshape(-1).to(rows.device), numbers, True, draws_of)
        weight = weight * ~best + best
        kept[part], factor[part] = _fold(best | drawn, top, score[part]), _fold(weight, top, score[part])
    return Selected(kept, factor)


def _parts(score: Tensor, counts: Tensor, draws: LayerDraws, *, whole: bool) -> Iterator[tuple[slice, DrawsPart]]:
    """Yield slices of units that fit in the cache together, and the random numbers of their rows."""
    if whole or not counts.dim() or not score.numel() or score.device.type != "cpu":
        parts = columns = [slice(None)]
    else:
        sides = counts.numel() // len(counts)
        together = max(1, IN_CACHE // (sides * score[0].numel()))
        parts = [slice(first, first + together) for first in range(0, len(score), together)]
        columns = [slice(sides * part.start, sides * part.stop) for part in parts]
    yield from zip(parts, draws.parts(columns), strict=True)


def _rows(score: Tensor, alive: Tensor, counts: Tensor) -> Tensor:
    """Return scores as float64 (rows, units), a row per count, none negative; all equal in rows of zeros."""
    living = alive.double()
    if counts.dim() == 2:
        signed = score.double().mul_(living).flatten(1)
        pairs = signed.new_empty(len(signed), 2, signed.shape[1])
        torch.clamp_min(signed, 0, out=pairs[:, 0])
        torch.clamp_min(signed.neg_(), 0, out=pairs[:, 1])
        return pairs.flatten(0, 1)
    shape = (int(counts.numel()), -1)
    rows = (score.double() * living).reshape(shape)
    return torch.where(rows.sum(1, keepdim=True) == 0, living.reshape(shape), rows)


def _fold(rows: Tensor, counts: Tensor, like: Tensor) -> Tensor:
    """Return rows of `_rows` in the scores' shape and device: a mask, or factors of the scores' dtype."""
    if counts.dim() == 2:
        positive, negative = rows.view(len(like), 2, -1).unbind(1)
        rows = positive | negative if rows.dtype == torch.bool else positive + negative
    return rows.reshape(like.shape).to(like.device if rows.dtype == torch.bool else like)


SELECTIONS: dict[str, Selection] = {"top": top, "sample": sample, "mixed": mixed}
