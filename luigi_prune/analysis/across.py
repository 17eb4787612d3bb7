"""Methods over several experiments: ranks, Friedman's test, and the critical difference of mean ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from luigi_prune.analysis.verdict import Verdict

# Settings that say where and under which name an experiment runs, not what it compares.
_UNVARIED = ("name", "directories", "network_names", "network_colors", "experiments.plotting")


@dataclass(frozen=True)
class MemberResult:
    """One experiment of a comparison: its name, the settings that vary, its verdict (None without results)."""

    name: str
    varied: Mapping[str, Any]
    verdict: Verdict | None
    methods: tuple[str, ...]
    missing: int
    expected: int

    @property
    def compression(self) -> dict[str, Any]:
        """Compression at the member's level by name of the method."""
        return {self.methods[at]: value for at, value in self.verdict.compression.items()} if self.verdict else {}


@dataclass(frozen=True)
class Across:
    """Ranks of the methods that every experiment with results compares; rank 1 is best, ties share the mean.

    `ranks` is (member, method), `mean_rank` (method), best first; `p` is of Friedman's test that all methods rank
    alike; two methods differ if their mean ranks are `critical_difference` apart (Nemenyi at 5 %, Demsar 2006), and
    `alike` lists the largest groups of methods that do not. NaN for fewer than two members or three methods (Friedman's
    test needs these). Members that share trained networks or data are not independent, which the test assumes.
    """

    methods: tuple[str, ...]
    left_out: tuple[str, ...]
    members: tuple[str, ...]
    ranks: np.ndarray
    mean_rank: np.ndarray
    p: float
    critical_difference: float
    alike: tuple[tuple[str, ...], ...]

    @property
    def ranks_experiments(self) -> bool:
        """Whether two experiments or more rank two methods or more."""
        return len(self.methods) > 1 and len(self.members) > 1


def across(members: Sequence[MemberResult]) -> Across:
    """Return the comparison of methods over experiments, by the mean compression at each experiment's own level."""
    judged = [member for member in members if member.verdict is not None]
    tables = [_positions(member) for member in judged]
    every = list(dict.fromkeys(name for table in tables for name in table))
    common = [name for name in every if all(name in table for table in tables)]
    values = np.array([[table[name] for name in common] for table in tables]).reshape(len(tables), len(common))
    from scipy.stats import rankdata

    ranks = rankdata(-values.round(9), axis=1) if values.size else values
    mean = ranks.mean(axis=0) if len(ranks) else np.zeros(0)
    order = np.argsort(mean, kind="stable")
    difference = critical_difference(len(common), len(ranks))
    names = tuple(common[at] for at in order)
    return Across(
        methods=names,
        left_out=tuple(name for name in every if name not in common),
        members=tuple(member.name for member in judged),
        ranks=ranks[:, order] if values.size else ranks,
        mean_rank=mean[order],
        p=_friedman(values),
        critical_difference=difference,
        alike=_groups(names, mean[order], difference),
    )


def _positions(member: MemberResult) -> dict[str, float]:
    found = member.verdict
    return {member.methods[at]: value for at, value in found.log2_on_grid.items()} if found else {}


def critical_difference(methods: int, members: int, alpha: float = 0.05) -> float:
    """Return by how much mean ranks must differ (Nemenyi's test), NaN for fewer than two methods or members."""
    if methods < 2 or members < 2:
        return float("nan")
    from scipy.stats import studentized_range

    q = float(studentized_range.ppf(1 - alpha, methods, np.inf)) / np.sqrt(2)
    return float(q * np.sqrt(methods * (methods + 1) / (6 * members)))


def _friedman(values: np.ndarray) -> float:
    members, methods = values.shape
    if members < 2 or methods < 3 or not np.ptp(values, axis=1).any():
        return float("nan")
    from scipy.stats import friedmanchisquare

    return float(friedmanchisquare(*values.round(9).T).pvalue)


def _groups(names: Sequence[str], mean_rank: np.ndarray, difference: float) -> tuple[tuple[str, ...], ...]:
    """Return the largest runs of neighbours, best first, whose mean ranks are less than `difference` apart."""
    if not np.isfinite(difference):
        return ()
    groups: list[tuple[str, ...]] = []
    last = 0
    for first in range(len(names)):
        end = int(np.flatnonzero(mean_rank - mean_rank[first] < difference)[-1]) + 1
        if end > last and end - first > 1:
            groups.append(tuple(names[first:end]))
        last = max(last, end)
    return tuple(groups)


def varied_settings(settings: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return, per experiment, the settings (by dotted key) that are not the same in all of them."""
    flat = [_flat(entry) for entry in settings]
    keys = list(dict.fromkeys(key for entry in flat for key in entry))
    # Retraining inherits from training: a key that only repeats training's variation is no axis of its own.
    varied = [key for key in keys if any(entry.get(key) != flat[0].get(key) for entry in flat)]
    own = [
        key
        for key in varied
        if not (key.startswith("retraining.") and _same(flat, key, "training." + key.removeprefix("retraining.")))
    ]
    return [{key: entry.get(key) for key in own} for entry in flat]


def _same(flat: Sequence[Mapping[str, Any]], key: str, other: str) -> bool:
    return all(entry.get(key) == entry.get(other) for entry in flat)


def _flat(settings: Any, prefix: str = "") -> dict[str, Any]:
    if prefix in _UNVARIED or not isinstance(settings, Mapping) or not settings:
        return {} if prefix in _UNVARIED else {prefix: settings}
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return flat
