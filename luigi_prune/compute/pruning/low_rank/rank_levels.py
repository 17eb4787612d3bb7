"""The allocations of low-rank methods: rank, groups and folding of every layer at each level.

A layer's path is the sequence of its choices, each with more weights than the previous one; the last is None, the layer
unchanged. Every rule is a single number v that falls (an error, a price per weight) or grows (a fraction of the rank);
when v passes a key, the layer takes the next choice on its path. The sorted keys of all layers are the levels. So a
level is exact, neighbouring levels differ by one step of one layer, and the costs of all levels are one cumulative sum.
If several layers would step at the same v, as equal layers do under "the same fraction of the rank in every layer",
they step one after the other: at that v either rounding is right.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from luigi_prune.compute.pruning.low_rank.candidates import Candidates
from luigi_prune.compute.pruning.low_rank.spectra import Spectrum
from luigi_prune.compute.pruning.problem.records import Allocation, Choice, Decomposition, Levels, Problem, Scores


@dataclass(frozen=True, eq=False)
class Path:
    """One layer's choices (n), the weights of each (n), and the keys at which the next is taken (n - 1)."""

    choices: list[Choice]
    costs: np.ndarray
    keys: np.ndarray


@dataclass(frozen=True)
class RankLevels(Levels):
    """Levels, and how they are refined and filled.

    `refined(choices)`: the levels after measuring spectra of `choices` that so far are only bounded; None if all of
    them are measured, so that the choices are the same as if every spectrum were.
    `fill(cost)`: choices that cost at most `cost`: those of the highest level within it; the remainder goes to the next
    layers in the order of their keys, skipping those whose next choice is too expensive. None if the levels define the
    method: layers that step out of turn would make it another one.
    """

    refined: Callable[[list[Choice]], RankLevels | None] = lambda choices: None
    fill: Callable[[float], list[Choice]] | None = None


def levels_of(paths: list[Path], refined: Callable[..., Any] = lambda _: None, *, fills: bool = False) -> RankLevels:
    """Return the levels that walk all paths together, in the order of their keys; ties in the order of the layers.

    `fills`: the method's definition leaves open how a remaining budget is spent.
    """
    keys = np.concatenate([np.empty(0), *(np.maximum.accumulate(path.keys) for path in paths)])
    owners = np.repeat(np.arange(len(paths)), [path.keys.size for path in paths])
    gains = np.concatenate([np.empty(0), *(np.diff(path.costs) for path in paths)])
    order = np.argsort(keys, kind="stable")
    owners, gains = owners[order], gains[order]
    costs = sum(float(path.costs[0]) for path in paths) + np.append(0.0, np.cumsum(gains))

    def choices(steps: np.ndarray) -> list[Choice]:
        return [path.choices[step] for path, step in zip(paths, steps, strict=True)]

    def choose(level: int) -> list[Choice]:
        return choices(np.bincount(owners[:level], minlength=len(paths)))

    def fill(cost: float) -> list[Choice]:
        level = max(0, int(np.searchsorted(costs, cost, side="right")) - 1)
        steps, left = np.bincount(owners[:level], minlength=len(paths)), cost - costs[level]
        skipped: set[int] = set()
        for owner, gain in zip(owners[level:].tolist(), gains[level:].tolist(), strict=True):
            if gain > left:
                skipped.add(owner)
            elif owner not in skipped:
                steps[owner] += 1
                left -= gain
        return choices(steps)

    def cost(level: int) -> float:
        return float(costs[level])

    return RankLevels(costs.size, choose, cost, refined=refined, fill=fill if fills else None)


def choose_measured(levels: Levels, choose: Callable[[Any], list[Choice]]) -> tuple[Levels, list[Choice]]:
    """Return `choose(levels)`, with all spectra that it depends on measured, and the levels refined accordingly."""
    choices = choose(levels)
    while isinstance(levels, RankLevels) and (finer := levels.refined(choices)):
        levels, choices = finer, choose(finer)
    return levels, choices


def _by_rank(keys_of: Callable[[Candidates, Spectrum], np.ndarray]) -> Allocation:
    """Return the allocation of a rule for layers with one spectrum: the keys at which ranks 1, 2, ... are exceeded."""

    def allocation(problem: Problem, scores: Scores, granularity: str) -> Levels:
        return levels_of([_path(layer, keys_of) for layer in scores])

    return allocation


def _path(layer: Candidates, keys_of: Callable[[Candidates, Spectrum], np.ndarray]) -> Path:
    """Return the ranks of the layer's one spectrum that save weights, then the unchanged layer."""
    if not layer.spectra:
        return Path([None], np.array([float(layer.kept)]), np.empty(0))
    (spectrum,) = layer.spectra
    ranks = np.arange(1, spectrum.full + 1)
    costs = ranks * spectrum.per_rank + layer.extra
    saving = int(np.count_nonzero(costs < layer.kept))
    choices: list[Choice] = [Decomposition(rank, spectrum.groups, spectrum.folding) for rank in range(1, saving + 1)]
    costs = np.append(costs[:saving], layer.kept).astype(float)
    return Path([*choices, None], costs, keys_of(layer, spectrum)[:saving])


def _fraction_keys(layer: Candidates, spectrum: Spectrum) -> np.ndarray:
    """Return the fractions v at which round(v x full rank) passes each rank."""
    full = spectrum.full
    return (2 * np.arange(1, full + 1) + 1) / (2 * full)


def _operator_keys(layer: Candidates, spectrum: Spectrum) -> np.ndarray:
    """Return minus the relative operator-norm error at each rank: the rank is the first with an error of at most v."""
    return -spectrum.errors()


def _residual_keys(power: int) -> Callable[[Candidates, Spectrum], np.ndarray]:
    """Return the rule for the sum of the dropped singular values to some power, relative to the sum of all."""

    def keys(layer: Candidates, spectrum: Spectrum) -> np.ndarray:
        values = (spectrum.values**power).sum(axis=0)
        dropped = np.append(values[::-1].cumsum()[::-1][1:], 0.0)
        return -dropped / (values.sum() or 1.0)

    return keys


def _price_keys(layer: Candidates, spectrum: Spectrum) -> np.ndarray:
    """Return minus the price v per multiply-add at which one more rank pays.

    argmin over j of v x FLOPs(j) + the sum of the squared singular values beyond j: convex, so rank j + 1 is taken
    when its squared singular value exceeds v x FLOPs of one rank. (Idelbayev and Carreira-Perpinan, CVPR 2020.)
    """
    squared = (spectrum.values**2).sum(axis=0)
    return -np.append(squared[1:], 0.0) / (spectrum.per_rank * max(1, layer.patches))


def _energy_keys(layer: Candidates, spectrum: Spectrum) -> np.ndarray:
    """Return minus the score of each next component: its share of the energy so far, per multiply-add of one rank.

    (Zhang et al., arXiv 1505.06798.)
    """
    energy = spectrum.values[0]
    share = energy / np.maximum(energy.cumsum(), np.finfo(float).tiny)
    return -np.append(share[1:], 0.0) / (spectrum.per_rank * max(1, layer.patches))


class Frontier:
    """The Pareto-optimal choices of a layer, over all spectra and the ranks that save weights.

    Errors of a spectrum that is not measured yet are replaced by their lower bounds.
    """

    def __init__(self, layer: Candidates) -> None:
        self._layer = layer
        costs = [np.arange(1, s.full + 1) * s.per_rank + layer.extra for s in layer.spectra]
        counts = [int(np.searchsorted(cost, layer.kept)) for cost in costs]  # ranks that save weights
        self._ends = np.cumsum([0, *counts])
        self._costs = np.concatenate([np.empty(0), *(cost[:n] for cost, n in zip(costs, counts, strict=True))])
        self._owners = np.repeat(np.arange(len(counts)), counts)
        self._order = np.argsort(self._costs, kind="stable")
        self._errors = np.empty(len(self._costs))
        for index in range(len(counts)):
            self._read(index)

    def _read(self, index: int) -> None:
        first, end = self._ends[index : index + 2]
        if end > first:
            self._errors[first:end] = self._layer.spectra[index].least_errors()[: end - first]

    def refine(self, choice: Choice) -> bool:
        """Tighten the bounds of the spectrum of `choice`; return False if it is measured already."""
        if not isinstance(choice, Decomposition):
            return False
        pairs = [(spectrum.groups, spectrum.folding) for spectrum in self._layer.spectra]
        index = pairs.index((choice.groups, choice.folding))
        refined = self._layer.spectra[index].refine()
        if refined:
            self._read(index)
        return refined

    def choices(self) -> tuple[list[Choice], np.ndarray, np.ndarray]:
        """Return the choices by cost, their costs and relative errors: each has a smaller error than all cheaper ones.

        The last is None, the unchanged layer.
        """
        errors = self._errors[self._order]
        least = np.minimum.accumulate(np.append(np.inf, errors))
        best = self._order[errors < least[:-1]]
        costs, errors = self._costs[best], self._errors[best]
        later = np.append(costs[1:] > costs[:-1], True) if costs.size else costs.astype(bool)  # the best of equal costs
        best, costs, errors = best[later], costs[later], errors[later]
        owners = self._owners[best]
        ranks = best - self._ends[owners] + 1
        spectra = self._layer.spectra
        choices: list[Choice] = [
            Decomposition(rank, spectra[owner].groups, spectra[owner].folding)
            for rank, owner in zip(ranks.tolist(), owners.tolist(), strict=True)
        ]
        return [*choices, None], np.append(costs, self._layer.kept), np.append(errors, 0.0)


def _along_frontiers(scores: Scores, keys_of: Callable[..., np.ndarray], *, fills: bool) -> Levels:
    """Return the levels along the layers' frontiers; `keys_of(layer, costs, errors)`."""
    frontiers = [Frontier(layer) for layer in scores]

    def path(index: int) -> Path:
        choices, costs, errors = frontiers[index].choices()
        return Path(choices, costs, keys_of(scores[index], costs, errors))

    paths = [path(index) for index in range(len(scores))]

    def refined(choices: list[Choice]) -> RankLevels | None:
        changed = [index for index, choice in enumerate(choices) if frontiers[index].refine(choice)]
        for index in changed:
            paths[index] = path(index)
        return levels_of(paths, refined, fills=fills) if changed else None

    return levels_of(paths, refined, fills=fills)


def largest_error(problem: Problem, scores: Scores, granularity: str) -> Levels:
    """Return levels at which the largest relative error over the layers is the smallest possible for their cost.

    The exact optimum of ALDS's objective (arXiv 2107.11442): for an error v every layer takes its cheapest
    (folding, groups, rank) with at most that error. A remaining budget may be spent: no error grows.
    """
    return _along_frontiers(scores, lambda layer, costs, errors: -errors[:-1], fills=True)


def weight_fraction(problem: Problem, scores: Scores, granularity: str) -> Levels:
    """Return levels at which every layer keeps at most the same fraction of its weights, at the smallest error."""
    return _along_frontiers(scores, lambda layer, costs, errors: costs[1:] / max(1, layer.total), fills=False)


RANK_ALLOCATIONS: dict[str, Allocation] = {
    "rank_fraction": _by_rank(_fraction_keys),
    "operator_error": _by_rank(_operator_keys),
    "nuclear_error": _by_rank(_residual_keys(1)),
    "frobenius_error": _by_rank(_residual_keys(2)),
    "price_per_flop": _by_rank(_price_keys),
    "energy_per_flop": _by_rank(_energy_keys),
    "weight_fraction": weight_fraction,
    "largest_error": largest_error,
}
