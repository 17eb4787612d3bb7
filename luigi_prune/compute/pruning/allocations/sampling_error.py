"""Allocations by the sampling error, for SiPP (arXiv 1910.05422) and PFP (arXiv 1911.07412).

Both bound the number of samples that a sum of positive terms needs for a relative error. SiPP minimises the mean error
over filters at a budget, PFP the error that is common to all layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from luigi_prune.compute.pruning.problem.granularity import GRANULARITIES, is_protected
from luigi_prune.compute.pruning.problem.layers import Layer
from luigi_prune.compute.pruning.problem.patches import patch_count
from luigi_prune.compute.pruning.problem.records import Choice, Levels, Mixed, Problem, Scores
from luigi_prune.compute.pruning.scores.channel_order import place_zeros_last
from luigi_prune.compute.pruning.selection.drawing import expected_distinct, solve_many
from luigi_prune.compute.pruning.sizes_and_flops import CALIBRATION_CONSTANT
from luigi_prune.compute.pruning.structure.feature_chain import feature_chain
from luigi_prune.compute.zeros import counts_true, nonzero

ROW_BYTES = 32 * 2**20  # memory of the search for a layer's numbers of draws, and of sums over its sorted scores
SORTED = 2**22  # scores that are kept sorted; those of further layers are sorted at every level


def filter_error(problem: Problem, scores: Scores, granularity: str) -> Levels:
    """Return levels B that minimise the mean error over (filter, sign) pairs with B samples; the last keeps all."""
    return _filter_levels(problem, scores, lambda layer, counts, alpha: counts)


def filter_hybrid(problem: Problem, scores: Scores, granularity: str) -> Levels:
    """Return the same levels; pairs whose best weights alone have a smaller error than as many samples keep those."""
    sizes = np.cumsum([score.numel() for score in scores])
    tails = [_tails(score, keep=size <= SORTED) for score, size in zip(scores, sizes, strict=True)]  # functions

    def split(index: int, counts: Tensor, alpha: Tensor) -> Choice:
        kept = counts.flatten().long()
        unpicked = tails[index](kept).view_as(counts)
        by_top = CALIBRATION_CONSTANT * unpicked <= sampling_error(alpha / counts.clamp_min(1))
        nothing = torch.zeros_like(counts)
        return Mixed(torch.where(by_top, counts, nothing), torch.where(by_top, nothing, counts))

    return _filter_levels(problem, scores, split)


def _pairs(score: Tensor) -> Tensor:
    """Return sensitivities that carry their weights' signs as (filters, 2, entries), none negative, float64."""
    flat = score.detach().double().flatten(1)
    return torch.stack([flat.clamp_min(0), (-flat).clamp_min(0)], dim=1)


def _tails(score: Tensor, *, keep: bool) -> Callable[[Tensor], Tensor]:
    """Return a function that returns per pair the sum of all but the k largest, on the CPU; k: (2 filters,).

    `keep`: the sorted scores between calls, which take the memory of the weights.
    """
    if score.device.type != "cpu":
        return tails_by_tensors(_pairs(score).flatten(0, 1))
    flat = score.detach().flatten(1)
    rows = (flat if flat.dtype == torch.float64 else flat.float()).numpy()
    known = np.sort(rows, axis=1) if keep else None

    def tails(kept: Tensor) -> Tensor:
        counts = kept.numpy().reshape(-1, 2)
        some = max(1, ROW_BYTES // (8 * rows.shape[1]))
        parts = [slice(first, first + some) for first in range(0, len(rows), some)]
        return torch.from_numpy(
            np.concatenate(
                [_sums(np.sort(rows[part], axis=1) if known is None else known[part], counts[part]) for part in parts]
            ).reshape(-1)
        )

    return tails


def _sums(ascending: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Return per row the sums of all but the `kept` largest positive numbers, and minus those of all but the smallest
    negative ones: (rows, 2). Many times as fast as torch.
    """
    found = []
    for rows, counts in ((ascending, kept[:, :1]), (-ascending[:, ::-1], kept[:, 1:])):
        sums = np.maximum(rows, 0).astype(np.float64).cumsum(1)
        place = rows.shape[1] - counts - 1  # of the last number in the sum
        found.append(np.where(place < 0, 0.0, np.take_along_axis(sums, np.maximum(place, 0), 1))[:, 0])
    return np.stack(found, axis=1)


def tails_by_tensors(rows: Tensor) -> Callable[[Tensor], Tensor]:
    """Return what `_tails` returns, for pairs (2 filters, entries) on a device: without sums of floats in an order
    that nobody knows.
    """
    descending = rows.sort(dim=1, descending=True).values
    place = torch.arange(rows.shape[1], device=rows.device)
    return lambda kept: (descending * (place >= kept.to(rows.device)[:, None])).sum(1).cpu()


def confidence(problem: Problem, layer: Layer) -> float:
    """Return the factor between a sum of sensitivities and the samples that it takes: 2 C log(8 (P + 1) k / delta)."""
    kernel = layer.weight[0, 0].numel()
    patches = patch_count(layer, problem.outputs)
    return 2 * CALIBRATION_CONSTANT * math.log(8 * (patches + 1) * kernel / problem.delta)


def sampling_error(share: Tensor) -> Tensor:
    """Return the relative error of m samples, with `share` = alpha / m."""
    return (torch.sqrt((share / 3) ** 2 + 2 * share) + share / 3) / 2


def _filter_levels(problem: Problem, scores: Scores, finish: Callable[[int, Tensor, Tensor], Choice]) -> Levels:
    support, alpha = [], []
    for layer, score in zip(problem.layers, scores, strict=True):
        pairs = _pairs(score)
        support.append(nonzero(pairs).sum(2).cpu())
        alpha.append(pairs.sum(2).mul_(confidence(problem, layer)).cpu())
    weight = [torch.full_like(a, 1 / len(a)) for a in alpha]
    sizes = [a.numel() for a in alpha]
    flat_alpha, flat_weight = torch.cat([a.flatten() for a in alpha]), torch.cat([w.flatten() for w in weight])
    flat_support = torch.cat([s.flatten() for s in support])
    total = int(flat_support.sum())
    all_kept = float(sum(counts_true(problem.kept(layer) for layer in problem.layers)))

    def choose(level: int) -> list[Choice]:
        if level >= total:
            return [None] * len(scores)
        counts = torch.ceil(allocate_samples(flat_alpha, flat_weight, flat_support.double(), level) - 1e-9).long()
        chosen: list[Choice] = []
        for index, part in enumerate(counts.split(sizes)):
            if not bool((support[index] > 0).any()):
                chosen.append(None)  # no sample reaches this layer
                continue
            part = part.clone()
            if not bool(part.any()):
                part[int(alpha[index].argmax())] = 1
            chosen.append(finish(index, part.view_as(support[index]), alpha[index]))
        return chosen

    return Levels(total + 1, choose, lambda level: all_kept if level >= total else float(level), empties_filters=True)


def allocate_samples(alpha: Tensor, weight: Tensor, most: Tensor, budget: float) -> Tensor:
    """Return the m that minimise sum weight x sampling_error(alpha / m) with 0 <= m <= most and sum m <= budget.

    The terms are convex and share only the budget: at the optimum all of them, but those at their bound, have one
    slope. So the slope is found by bisection, and each m follows from it; all tensors float64 of shape (terms,).
    """
    if budget >= float(most.sum()):
        return most.clone()
    if budget <= 0:
        return torch.zeros_like(most)
    useful = most > 0
    goal = (weight / alpha)[useful]
    grid = torch.logspace(-16, 16, 4097, dtype=torch.float64, base=10)
    slopes = _steepness(grid).log()

    def at(level: float) -> Tensor:
        target = level - goal.log()  # log of share^2 x error'(share)
        index = torch.searchsorted(slopes, target).clamp(1, len(grid) - 1)
        low, high = slopes[index - 1], slopes[index]
        share = torch.exp(torch.lerp(grid[index - 1].log(), grid[index].log(), (target - low) / (high - low)))
        for _ in range(3):  # Newton's method on logarithms, in which the slope is nearly linear
            rise = 1e-5
            error = _steepness(share).log() - target
            incline = (_steepness(share * math.exp(rise)).log() - _steepness(share).log()) / rise
            share = share * torch.exp(-error / incline)
        return torch.minimum(alpha[useful] / share, most[useful])

    low, high = -60.0, 60.0  # more slope, fewer samples
    while high - low > 1e-13:
        middle = (low + high) / 2
        if float(at(middle).sum()) > budget:
            low = middle
        else:
            high = middle
    samples = torch.zeros_like(most)
    samples[useful] = at(high)
    return samples


def _steepness(share: Tensor) -> Tensor:
    """Return share^2 x the derivative of `sampling_error`: minus the error's slope in m, times alpha. Rises."""
    return share**2 * ((share / 9 + 1) / torch.sqrt((share / 3) ** 2 + 2 * share) + 1 / 3) / 2


def channel_complexity(problem: Problem, scores: Scores, granularity: str) -> Levels:
    """Return levels of an error that falls: each layer keeps the expected number of distinct channels in its samples.

    Layers whose channels may not be pruned (`is_protected`) keep all of them; so do layers that no sample reaches.
    """
    return _channel_levels(problem, scores, granularity, lambda index, count, draws: torch.tensor(count))


def channel_complexity_top(problem: Problem, scores: Scores, granularity: str) -> Levels:
    """Return the same levels; channels expected at least once in m samples are kept for certain, others drawn."""
    chances = [(score / score.sum().clamp_min(1e-30)).detach().double().cpu() for score in scores]

    def split(index: int, count: int, draws: float) -> Choice:
        certain = min(count, int((chances[index] >= 1 / max(draws, 1.0)).sum()))
        return Mixed(torch.tensor(certain), torch.tensor(count - certain))

    return _channel_levels(problem, scores, granularity, split)


def _channel_levels(
    problem: Problem, scores: Scores, granularity: str, finish: Callable[[int, int, float], Choice]
) -> Levels:
    unit = GRANULARITIES[granularity]
    alive = [unit.alive(problem.kept(layer)) for layer in problem.layers]
    living = counts_true(alive)
    scores = [score.detach().double().cpu() for score in scores]
    if problem.rules.ranks_channels_without_score:  # of scores from outside, too
        scores = [place_zeros_last(score) for score in scores]
    scores = [score * mask.cpu() for score, mask in zip(scores, alive, strict=True)]
    alphas = [
        float(score.sum()) * confidence(problem, layer) for score, layer in zip(scores, problem.layers, strict=True)
    ]
    fixed = [
        is_protected(granularity, layer, problem) or not alpha
        for layer, alpha in zip(problem.layers, alphas, strict=True)
    ]
    _name_unreached(problem, [layer.name for layer, alpha in zip(problem.layers, alphas, strict=True) if not alpha])
    # For each layer the errors below which it keeps 2, 3, ... channels.
    thresholds = [
        np.empty(0) if is_fixed else _error_of_draws(alpha, _first_draws(score))
        for score, alpha, is_fixed in zip(scores, alphas, fixed, strict=True)
    ]
    errors = np.unique(np.concatenate([np.array([np.inf]), *thresholds]))[::-1]

    def counts(level: int) -> list[int]:
        if level >= len(errors):
            return living
        distinct = [1 + int(np.count_nonzero(layer >= errors[level])) for layer in thresholds]
        return [n if is_fixed else min(n, k) for n, k, is_fixed in zip(living, distinct, fixed, strict=True)]

    def choose(level: int) -> list[Choice]:
        if level >= len(errors):
            return [None] * len(scores)
        return [
            None if is_fixed else finish(index, count, _draws_of_error(alphas[index], float(errors[level])))
            for index, (count, is_fixed) in enumerate(zip(counts(level), fixed, strict=True))
        ]

    size = feature_chain(problem, granularity)
    return Levels(len(errors) + 1, choose, lambda level: size(counts(level)))


def _name_unreached(problem: Problem, names: list[str]) -> None:
    if names:
        problem.warnings.append(f"no calibration sample reaches {', '.join(names)}: all channels are kept")


def _draws_of_error(alpha: float, error: float) -> float:
    """Return the number of samples for an error: ceil(3 (6 + 2 error) alpha / error^2)."""
    return 1.0 if math.isinf(error) else math.ceil(3 * (6 + 2 * error) * alpha / error**2 - 1e-6)


def _error_of_draws(alpha: float, draws: np.ndarray) -> np.ndarray:
    """Return the errors below which more than `draws` - 1 samples are taken."""
    less = np.maximum(draws - 1, 1e-12)
    return np.asarray((6 * alpha + np.sqrt(36 * alpha**2 + 72 * alpha * less)) / (2 * less))


def _first_draws(score: Tensor) -> np.ndarray:
    """Return for n = 2, 3, ... the least number of draws with more than n - 1 distinct channels on average."""
    chance = score[score > 0] / score.sum()
    draws_per_goal = []
    for goals, solved in solve_many(chance, torch.arange(1, len(chance), dtype=torch.float64), memory=ROW_BYTES):
        draws = solved.floor()
        expected = expected_distinct(chance.expand(len(goals), -1), draws)
        draws_per_goal.append(torch.where(expected > goals, draws, draws + 1))
    return torch.cat(draws_per_goal).numpy() if draws_per_goal else np.empty(0)
