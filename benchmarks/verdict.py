"""Synthetic experiments whose truth is known: how often a report names a wrong leader, and whether its intervals cover.

    python -m benchmarks.verdict [--runs 2000]

prints the tables of docs/report_statistics.md. Every experiment is simulated image by image: an image is hard or easy
for all networks alike, a network is right about it with a probability given by the method's true curve, retraining adds
noise per network, and the report's own functions see nothing but the counts.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtri

from luigi_prune.analysis.commensurate import choose
from luigi_prune.analysis.inference import bootstrap_interval, holm, mean_interval, sign_flip_p
from luigi_prune.analysis.verdict import verdict

Arrays = dict[str, np.ndarray]

KEEP_RATIOS = (0.5, 0.35, 0.25, 0.18, 0.12, 0.08)
# The rule of earlier reports: the largest mean share pruned at a drop of half a point, 0 if a run does not reach it.
EARLIER_LEVEL = 0.005


@dataclass(frozen=True)
class Scenario:
    """An experiment: `drops` are the true losses of accuracy of each method at a compression of 8."""

    name: str
    drops: tuple[float, ...]
    nets: int = 3
    validation_images: int = 143
    test_images: int = 360
    accuracy: float = 0.96
    retraining_noise: float = 0.005
    alike: float = 0.7  # correlation of two networks' latent certainty about an image

    @property
    def best(self) -> int | None:
        """Index of the truly best method on the axis of methods (0 is the unpruned network), None if several are."""
        least = min(self.drops)
        return self.drops.index(least) + 1 if self.drops.count(least) == 1 else None


SCENARIOS = (
    Scenario("one best, far ahead", (0.02, 0.16, 0.16, 0.20)),
    Scenario("one best, ahead", (0.04, 0.10, 0.10, 0.12)),
    Scenario("one best, just ahead", (0.05, 0.06, 0.06, 0.07)),
    Scenario("two best", (0.04, 0.04, 0.10, 0.12)),
    Scenario("all alike, 4 methods", (0.06,) * 4),
    Scenario("all alike, 8 methods", (0.06,) * 8),
)


def simulate(scenario: Scenario, rng: np.random.Generator) -> Arrays:
    """Return the tables of one experiment, as far as a verdict reads them."""
    methods, ratios = len(scenario.drops) + 1, np.asarray(KEEP_RATIOS)
    shape = (scenario.nets, len(ratios), 1, methods)
    compression = np.log2(1 / ratios) / 3
    drop = np.concatenate([np.zeros((len(ratios), 1)), np.outer(compression**2, scenario.drops)], axis=1)
    base = scenario.accuracy + rng.normal(0, 0.005, (scenario.nets, 1, 1, 1))
    accuracy = base - drop[None, :, None] + rng.normal(0, scenario.retraining_noise, shape)
    accuracy[..., 0] = base[..., 0]
    accuracy = np.clip(accuracy, 0.01, 0.995)
    share = {
        "validation": _share_right(accuracy, scenario.validation_images, scenario.alike, rng),
        "test/Test": _share_right(accuracy, scenario.test_images, scenario.alike, rng),
    }
    size = ratios[None, :, None, None] * (1 + rng.normal(0, 0.003, shape))
    size[..., 0] = 1.0
    return {
        "axes/net": np.arange(scenario.nets),
        "axes/keep_ratio": ratios,
        "axes/repetition": np.arange(1),
        "axes/method": np.asarray(["ReferenceNet", *(f"Method{at}" for at in range(1, methods))]),
        "axes/metric": np.asarray(["TopK1"]),
        "axes/test_set": np.asarray(["Test"]),
        "method/nominal": np.arange(methods) == 0,
        "ratio/nominal": ratios,
        "cost/size": size,
        "cost/flops": size,
        "test/Test/loss": 1 - share["test/Test"],
        **{f"{split}/TopK1": values for split, values in share.items()},
    }


def _share_right(accuracy: np.ndarray, images: int, alike: float, rng: np.random.Generator) -> np.ndarray:
    """Return the share of images that each network is right about; the unpruned network is the same at each ratio."""
    hardness = np.sqrt(alike) * rng.normal(size=images)
    own = np.sqrt(1 - alike) * rng.normal(size=(*accuracy.shape, images))
    own[:, 1:, :, 0] = own[:, :1, :, 0]
    right: np.ndarray = hardness + own < ndtri(accuracy)[..., None]
    return right.mean(axis=-1)


META = {"dataset_train": "Simulated", "retraining_epochs": [0, 1], "missing": {}}


def earlier_leader(arrays: Arrays) -> int:
    """Return the method that the earlier rule names: it names one always."""
    chosen = choose(arrays, "Test")
    pruned = chosen.pruned[chosen.at(EARLIER_LEVEL)].mean(axis=(0, 1))
    return 1 + int(np.argmax(pruned[1:]))


def leader(arrays: Arrays) -> int | None:
    """Return the method that the verdict names, or None."""
    found = verdict(arrays, META, "Test", "TopK1")
    assert found is not None
    return found.leader


def shares(scenario: Scenario, runs: int, seed: int = 0) -> dict[str, tuple[float, float]]:
    """Return per rule the shares of experiments with the truly best method named, and with another named."""
    before, after = [], []
    for generator in np.random.default_rng(seed).spawn(runs):
        arrays = simulate(scenario, generator)
        before.append(earlier_leader(arrays))
        after.append(leader(arrays))
    best = scenario.best
    return {
        rule: (
            float(np.mean([name == best and name is not None for name in named])),
            float(np.mean([name is not None and name != best for name in named])),
        )
        for rule, named in (("before", before), ("after", after))
    }


def coverage(nets: int, runs: int, draw: str, seed: int = 0) -> dict[str, float]:
    """Return the share of 95 % intervals that contain the true mean, 0, for Student's t and the BCa bootstrap."""
    rng = np.random.default_rng(seed)
    # Centred, so that the true mean is 0: normal, skewed, or steps of a grid.
    draws = {
        "normal": rng.normal(size=(runs, nets)),
        "skewed": rng.exponential(size=(runs, nets)) - 1,
        "grid": np.rint(rng.normal(size=(runs, nets))),
    }[draw]
    least_std = 1 / np.sqrt(6) if draw == "grid" else 0.0
    kinds = {
        "t": [mean_interval(row, least_std=least_std) for row in draws],  # t below 50 nets
        "BCa": [bootstrap_interval(row) for row in draws],
    }
    return {name: float(np.mean([found.low <= 0 <= found.high for found in all_])) for name, all_ in kinds.items()}


def false_alarms(nets: int, tests: int, runs: int, seed: int = 0) -> tuple[float, float]:
    """Return the share of runs where a true null is rejected at 5 %: one sign-flip test, any of `tests` after Holm."""
    rng = np.random.default_rng(seed)
    p = np.array([[sign_flip_p(rng.normal(size=nets)) for _ in range(tests)] for _ in range(runs)])
    adjusted = np.array([holm(row) for row in p])
    return float((p[:, 0] <= 0.05).mean()), float((adjusted <= 0.05).any(axis=1).mean())


def tables(runs: int) -> Iterator[str]:
    """Yield the lines of the tables in Markdown."""
    yield "| experiment | nets | best named before | wrong before | best named now | wrong now |"
    yield "|---|---|---|---|---|---|"
    for scenario in SCENARIOS:
        for nets in (3, 5, 10):
            found = shares(replace(scenario, nets=nets), runs)
            cells = (f"{100 * share:.1f} %" for pair in found.values() for share in pair)
            yield f"| {scenario.name} | {nets} | {' | '.join(cells)} |"
    yield ""
    yield "| differences | nets | Student's t covers | BCa covers |"
    yield "|---|---|---|---|"
    for draw in ("normal", "skewed", "grid"):
        for nets in (3, 5, 10, 20, 49):
            found = coverage(nets, max(runs // 2, 1), draw)
            yield f"| {draw} | {nets} | {100 * found['t']:.1f} % | {100 * found['BCa']:.1f} % |"
    yield ""
    yield "| nets | one sign-flip test | any of 10, Holm |"
    yield "|---|---|---|"
    for nets in (5, 6, 8, 10):
        one, any_ = false_alarms(nets, 10, max(runs // 4, 1))
        yield f"| {nets} | {100 * one:.1f} % | {100 * any_:.1f} % |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2000, help="simulated experiments per row")
    for line in tables(parser.parse_args().runs):
        print(line, flush=True)


if __name__ == "__main__":
    main()
