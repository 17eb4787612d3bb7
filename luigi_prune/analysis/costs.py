"""What an experiment cost, per family of tasks: every task counts once, however many evaluations stand on it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np

FAMILIES = ("TrainBase", "Prune", "Retrain", "Evaluate")


class Measured(NamedTuple):
    """What one result file says of its making."""

    family: str
    key: str
    numbers: Mapping[str, float]  # `<family>_seconds`, `<family>_gpu_seconds`, `<family>_peak_bytes`; of inputs, too
    parents: Mapping[str, str]  # key -> path


def family_costs(paths: Iterable[str], look: Callable[[str], Measured | None]) -> dict[str, np.ndarray]:
    """Return what the results at `paths`, and all that they were made from, cost; `look` returns None for a lost file.

    Arrays, with F families that have a task: `family/name` (F, text), `family/tasks` (F), `family/seconds` (F),
    `family/gpu_tasks` (F): how many tasks say how many GPUs they held, `family/gpu_seconds` (F): seconds times GPUs of
    those, `family/peak_bytes` (F): the largest. Of a lost file, what the result behind it carries along is counted.
    """
    found: dict[tuple[str, str], Measured] = {}
    carried: dict[tuple[str, str], Measured] = {}
    seen = set(paths := list(dict.fromkeys(paths)))
    waiting = [result for path in paths if (result := look(path))]
    while waiting:
        result = waiting.pop()
        found[result.family, result.key] = result
        for key, path in result.parents.items():
            if path not in seen:
                seen.add(path)
                if parent := look(path):
                    waiting.append(parent)
                else:
                    carried |= {(family, key): result for family in FAMILIES if family != result.family}
    return _summed({**carried, **found})


def _summed(tasks: Mapping[tuple[str, str], Measured]) -> dict[str, np.ndarray]:
    """Return the arrays; a task without seconds is none (its result carries nothing of that family)."""
    seconds: dict[str, list[float]] = defaultdict(list)
    gpu_seconds: dict[str, list[float]] = defaultdict(list)
    peaks: dict[str, list[float]] = defaultdict(list)
    for (family, _), result in tasks.items():
        for what, into in (("seconds", seconds), ("gpu_seconds", gpu_seconds), ("peak_bytes", peaks)):
            if (number := result.numbers.get(f"{family.lower()}_{what}")) is not None:
                into[family].append(number)
    names = [family for family in FAMILIES if seconds[family]]
    return {
        "family/name": np.asarray(names, dtype=np.str_),
        "family/tasks": np.asarray([len(seconds[name]) for name in names], dtype=np.int64),
        "family/seconds": np.asarray([sum(sorted(seconds[name])) for name in names], dtype=np.float64),
        "family/gpu_tasks": np.asarray([len(gpu_seconds[name]) for name in names], dtype=np.int64),
        "family/gpu_seconds": np.asarray([sum(sorted(gpu_seconds[name])) for name in names], dtype=np.float64),
        "family/peak_bytes": np.asarray([max(peaks[name], default=np.nan) for name in names], dtype=np.float64),
    }
