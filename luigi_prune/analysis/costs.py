"""Cost of an experiment per family of tasks: every task counts once, however many evaluations depend on it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np

FAMILIES = ("TrainBase", "Prune", "Retrain", "Evaluate")


class Measured(NamedTuple):
    """Measured cost recorded in one result file."""

    family: str
    key: str
    numbers: Mapping[str, float]  # `<family>_seconds`, `<family>_gpu_seconds`, `<family>_peak_bytes`, also of inputs
    parents: Mapping[str, str]  # key -> path


def family_costs(paths: Iterable[str], read: Callable[[str], Measured | None]) -> dict[str, np.ndarray]:
    """Return the cost of the results at `paths` and of all their inputs; `read` returns None for a lost file.

    Arrays, with F families that have a task: `family/name` (F, text), `family/tasks` (F), `family/seconds` (F),
    `family/gpu_tasks` (F): number of tasks that record their GPUs, `family/gpu_seconds` (F): seconds times GPUs of
    those, `family/peak_bytes` (F): the largest. For a lost file, the copy in a result that depends on it is counted.
    """
    results: dict[tuple[str, str], Measured] = {}
    carried: dict[tuple[str, str], Measured] = {}
    seen = set(paths := list(dict.fromkeys(paths)))
    pending = [result for path in paths if (result := read(path))]
    while pending:
        result = pending.pop()
        results[result.family, result.key] = result
        for key, path in result.parents.items():
            if path not in seen:
                seen.add(path)
                if parent := read(path):
                    pending.append(parent)
                else:
                    carried |= {(family, key): result for family in FAMILIES if family != result.family}
    return _summed({**carried, **results})


def _summed(tasks: Mapping[tuple[str, str], Measured]) -> dict[str, np.ndarray]:
    """Return the arrays; tasks without seconds are left out (the result carries no cost of that family)."""
    seconds: dict[str, list[float]] = defaultdict(list)
    gpu_seconds: dict[str, list[float]] = defaultdict(list)
    peaks: dict[str, list[float]] = defaultdict(list)
    for (family, _), result in tasks.items():
        for quantity, values in (("seconds", seconds), ("gpu_seconds", gpu_seconds), ("peak_bytes", peaks)):
            if (number := result.numbers.get(f"{family.lower()}_{quantity}")) is not None:
                values[family].append(number)
    names = [family for family in FAMILIES if seconds[family]]
    return {
        "family/name": np.asarray(names, dtype=np.str_),
        "family/tasks": np.asarray([len(seconds[name]) for name in names], dtype=np.int64),
        "family/seconds": np.asarray([sum(sorted(seconds[name])) for name in names], dtype=np.float64),
        "family/gpu_tasks": np.asarray([len(gpu_seconds[name]) for name in names], dtype=np.int64),
        "family/gpu_seconds": np.asarray([sum(sorted(gpu_seconds[name])) for name in names], dtype=np.float64),
        "family/peak_bytes": np.asarray([max(peaks[name], default=np.nan) for name in names], dtype=np.float64),
    }


class TotalSeconds(NamedTuple):
    """Seconds behind every network, over the cells (net, ratio, repetition, method); NaN if a part is unknown.

    `training` is that of the unpruned network; `pruning` and `retraining` are the sums over all steps that lead to the
    network: in a cascade those of the ratios before it, too. Retraining is 0 if nothing was retrained.
    """

    training: np.ndarray
    pruning: np.ndarray
    retraining: np.ndarray

    @property
    def total(self) -> np.ndarray:
        """Seconds of all steps together."""
        return self.training + self.pruning + self.retraining


def total_seconds(measured: Mapping[str, np.ndarray], mode: str) -> TotalSeconds | None:
    """Return the seconds behind every pruned network; None if training or pruning was not measured."""
    if not {"trainbase_seconds", "prune_seconds"} <= set(measured):
        return None
    pruning = measured["prune_seconds"]
    unknown = np.where(np.isfinite(pruning), 0.0, np.nan)
    retraining = measured.get("retrain_seconds", unknown)
    if mode.startswith("cascade"):
        pruning, retraining = np.cumsum(pruning, axis=1), np.cumsum(retraining, axis=1)
    return TotalSeconds(measured["trainbase_seconds"][..., :1] + unknown, pruning, retraining)
