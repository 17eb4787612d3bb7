"""The verdict on a comparison: which method leads at which level, if any, and whether that can be decided at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from luigi_prune.analysis.censoring import Censored, RunsAtLevel, censored, log_compression, on_grid, runs_at_level
from luigi_prune.analysis.commensurate import Commensurate, choose, has_validation, unit_of
from luigi_prune.analysis.comparison import at_compression, largest_miss
from luigi_prune.analysis.completeness import evaluated, missing_and_expected
from luigi_prune.analysis.inference import Interval, holm, mean_interval, over_nets, sign_flip_p
from luigi_prune.analysis.resolution import sample_count
from luigi_prune.analysis.statistics import SOUND_NUMBER_OF_NETS
from luigi_prune.registry.dataset_families import SYNTHETIC

Arrays = dict[str, np.ndarray]

# Levels at which methods may be ranked, from the one at which ALDS and PFP are compared.
DECISION_LEVELS = (0.005, 0.01, 0.02, 0.05, 0.1)
# A drop of one sample is one network's luck with one image.
SAMPLES_PER_LEVEL = 2
# Keep ratios may be missed by so much, relative to the target.
TOLERATED_MISS = 0.05


@dataclass(frozen=True)
class LevelOrder:
    """Methods at one level, the best mean compression first; `leader` only if it is clear."""

    level: float
    order: tuple[int, ...]
    leader: int | None
    tied: tuple[int, ...]


@dataclass(frozen=True)
class Verdict:
    """What may be claimed of one test set and metric; methods are indices into `axes/method`.

    `lead` is log2 of the compression of the best method over the next one's, paired by run and counted in steps of the
    grid; `tied` are the methods not shown worse than the best, itself included (all that were compared if none is).
    `log2_on_grid` is each method's mean log2 compression, every run's moved to the nearest keep ratio of the grid.
    `samples` is the number behind the metric that levels are chosen on, None if unknown; `resolution` is one over it.
    """

    test_set: str
    metric: str
    chosen_on: str
    level: float
    lower: bool
    is_share: bool
    samples: int | None
    resolution: float | None
    order: tuple[int, ...]
    leader: int | None
    tied: tuple[int, ...]
    lead: Interval | None
    compression: dict[int, Censored]
    log2_on_grid: dict[int, float]
    nets: int
    results: int
    expected: int
    changes: tuple[LevelOrder, ...]
    reasons: tuple[str, ...]

    @property
    def unit(self) -> str:
        """What levels are counted in."""
        return unit_of(self)

    @property
    def fit_to_decide(self) -> bool:
        """Whether nothing speaks against deciding by this comparison."""
        return not self.reasons

    @property
    def lead_factor(self) -> tuple[float, float, float] | None:
        """The lead as a factor of compression with its interval, None if two methods were not compared."""
        lead = self.lead
        return None if lead is None else (2**lead.mean, 2**lead.low, 2**lead.high)


def verdict(arrays: Arrays, meta: dict[str, Any], test_set: str, metric: str) -> Verdict | None:
    """Return the verdict on a test set and metric; None if no method that prunes has results there.

    A method leads if, at the level, its paired 95 % interval against *every* other method excludes 0. To beat all at
    once by chance is rarer than to beat one (Gutmann and Maymin 1987), so the intervals need no correction for the
    number of methods; benchmarks/verdict.py measures that.
    """
    on_validation = has_validation(arrays, metric)
    split = "validation" if on_validation else f"test/{test_set}"
    chosen = choose(arrays, test_set, "validation" if on_validation else "test", metric=metric)
    counted = chosen.is_share and not chosen.lower
    samples = sample_count(arrays, split, metric) if counted else None
    level = decision_level(samples)
    pruning = np.flatnonzero(~arrays["method/nominal"] & chosen.available.any(axis=(0, 1)))
    if not len(pruning):
        return None
    main = order_at(chosen, arrays, level or DECISION_LEVELS[-1], pruning)
    runs = runs_at_level(chosen, arrays, main.level)
    orders = [order_at(chosen, arrays, other, pruning) for other in DECISION_LEVELS if other > main.level]
    known = np.isfinite(arrays[f"test/{test_set}/{metric}"][..., ~arrays["method/nominal"]])
    if level is None:
        main = LevelOrder(main.level, main.order, None, tuple(pruning.tolist()))
    return Verdict(
        test_set=test_set,
        metric=metric,
        chosen_on=chosen.chosen_on,
        level=main.level,
        lower=chosen.lower,
        is_share=chosen.is_share,
        samples=samples,
        resolution=1 / samples if samples else None,
        order=main.order,
        leader=main.leader,
        tied=main.tied,
        lead=_difference(_positions(runs, arrays), *main.order[:2]) if len(main.order) > 1 else None,
        compression={method: censored(runs, arrays["cost/size"], method) for method in main.order},
        log2_on_grid={m: float(np.mean(over_nets(_positions(runs, arrays)[0][..., m]))) for m in main.order},
        nets=int(runs.available[..., pruning].any(axis=(1, 2)).sum()),
        results=int(known.sum()),
        expected=known.size,
        changes=tuple(order for order in orders if order.order[0] != main.order[0]),
        reasons=tuple(_reasons(arrays, meta, chosen, runs, main, level, samples if counted else -1)),
    )


def decision_level(samples: int | None) -> float | None:
    """Return the smallest level of at least two samples, None if there are too few; 0.005 if they are unknown."""
    if samples is None:
        return DECISION_LEVELS[0]
    enough = [level for level in DECISION_LEVELS if level * samples >= SAMPLES_PER_LEVEL]
    return enough[0] if enough else None


def order_at(chosen: Commensurate, arrays: Arrays, level: float, methods: np.ndarray) -> LevelOrder:
    """Return the order of methods at a level, with the leader if there is one."""
    runs = runs_at_level(chosen, arrays, level)
    positions = _positions(runs, arrays)
    exact = log_compression(runs, arrays["cost/size"])
    # Equal on the grid: by runs that reach the level, by exact size, then by name, so that the order does not depend on
    # that of the settings.
    key = {
        m: (
            -np.mean(over_nets(positions[0][..., m])).round(9),
            int(runs.never[..., m].sum()),
            -np.mean(over_nets(exact[..., m])).round(9),
            str(arrays["axes/method"][m]),
        )
        for m in methods
    }
    order = sorted((int(m) for m in methods), key=lambda m: key[m])
    best = order[0]
    # `not >` and not `<=`: an interval of NaN, of a single net, shows nothing.
    tied = tuple(m for m in order if m == best or not _difference(positions, best, m).low > 0)
    is_clear = len(tied) == 1 and len(order) > 1
    return LevelOrder(level, tuple(order), best if is_clear else None, tied)


def _positions(runs: RunsAtLevel, arrays: Arrays) -> tuple[np.ndarray, float]:
    """Return log2 compressions on the grid, and the standard deviation of a difference of two rounded to it."""
    positions, step = on_grid(log_compression(runs, arrays["cost/size"]), arrays["axes/keep_ratio"])
    return positions, step / np.sqrt(6)


def _difference(positions: tuple[np.ndarray, float], best: int, other: int) -> Interval:
    values, least_std = positions
    differences = over_nets(values[..., best] - values[..., other])
    # Equal in every net: a tie, however many nets.
    return mean_interval(differences, least_std=least_std if np.any(differences) else 0.0)


def _reasons(
    arrays: Arrays,
    meta: dict[str, Any],
    chosen: Commensurate,
    runs: RunsAtLevel,
    main: LevelOrder,
    level: float | None,
    samples: int | None,
) -> list[str]:
    """Return what speaks against deciding by these results, the gravest first."""
    nets = int(runs.available[..., list(main.order)].any(axis=(1, 2)).sum())
    missed = np.nanmax(largest_miss(arrays)[list(main.order)], initial=0.0)
    epochs, cells = meta.get("retraining_epochs"), sum(meta.get("missing", {}).values())
    missing = missing_and_expected(evaluated(arrays, meta))[0] if cells else 0
    never = all(runs.never[..., m][runs.available[..., m]].all() for m in main.order)
    ended = [m for m in main.order if m in main.tied and runs.ended[..., m].any()]
    names = arrays["axes/method"]
    found = {
        "samples are random": str(meta.get("dataset_train", "")).startswith(SYNTHETIC),
        "only one method prunes": len(main.order) < 2,
        f"results are missing: {missing or cells}": bool(cells),
        f"{samples} samples of {chosen.chosen_on} data are too few for any level": level is None,
        f"no method stays within the level of {100 * main.level:g} {unit_of(chosen)} at any ratio": never,
        f"{nets} of {SOUND_NUMBER_OF_NETS} independent networks": nets < SOUND_NUMBER_OF_NETS,
        "networks were chosen on the test set": chosen.chosen_on == "test",
        f"the number of samples behind {chosen.chosen_on} is unknown": samples is None,
        f"fewer than 5 keep ratios: {len(arrays['axes/keep_ratio'])}": len(arrays["axes/keep_ratio"]) < 5,
        f"{', '.join(str(names[m]) for m in ended)}: still within the level at the smallest keep ratio": bool(ended),
        f"keep ratios are missed by up to {100 * missed:.2g} %": bool(missed > TOLERATED_MISS),
        "the retraining budget is unknown": epochs is None,
    }
    return [reason for reason, holds in found.items() if holds]


@dataclass(frozen=True)
class Pairwise:
    """Who beats whom on a metric at a fixed compression, arrays (method, method) over `methods`: row minus column.

    `difference` with `low` and `high` is the mean paired difference and its 95 % interval; `p` is of a sign-flip
    permutation test, `adjusted` by Holm over all pairs; `nets` is the number of pairs; NaN where methods share fewer
    than two nets that are that small. `better` is 1 where the row is shown better, -1 where worse, else 0.
    """

    methods: tuple[int, ...]
    compression: float
    difference: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray
    adjusted: np.ndarray
    nets: np.ndarray
    better: np.ndarray

    @property
    def indicative(self) -> bool:
        """Whether some pair has fewer networks than a difference needs to be called more than indicative."""
        compared = self.nets[np.isfinite(self.p)]
        return not len(compared) or int(compared.min()) < SOUND_NUMBER_OF_NETS


def pairwise(arrays: Arrays, test_set: str, metric: str, compression: float, lower: bool = False) -> Pairwise:
    """Return the comparison of all pairs of methods that prune; pairs share network, seed, calibration set and order.

    Some nets may lack a network that small for one of the methods: a pair is compared over those that have both.
    """
    values = at_compression(arrays, test_set, metric, (compression,))[0]
    methods = tuple(int(m) for m in np.flatnonzero(~arrays["method/nominal"]) if np.isfinite(values[..., m]).any())
    size = len(methods)
    difference, low, high, p = (np.full((size, size), np.nan) for _ in range(4))
    nets = np.zeros((size, size), dtype=np.int64)
    for row, column in zip(*np.triu_indices(size, 1), strict=True):
        paired = over_nets(values[..., methods[row]] - values[..., methods[column]])
        found = mean_interval(paired)
        nets[row, column] = nets[column, row] = found.n
        p[row, column] = p[column, row] = sign_flip_p(paired)
        difference[row, column], difference[column, row] = found.mean, -found.mean
        low[row, column], low[column, row] = found.low, -found.high
        high[row, column], high[column, row] = found.high, -found.low
    adjusted = np.full((size, size), np.nan)
    upper = np.triu_indices(size, 1)
    adjusted[upper] = holm(p[upper])
    adjusted.T[upper] = adjusted[upper]
    sign = np.sign(np.nan_to_num(difference)) * (-1 if lower else 1)
    better = np.where(np.nan_to_num(adjusted, nan=1.0) <= 0.05, sign, 0).astype(np.int64)
    return Pairwise(methods, compression, difference, low, high, p, adjusted, nets, better)
