"""Series of keep ratios, and the subset that is retrained."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from luigi_prune.config.schema import SpacingConfig, camel_case
from luigi_prune.errors import ConfigError

DIGITS = 12
"""Significant digits of a ratio: enough for any network, few enough to absorb rounding errors."""

_REQUIRED_KEYS = {
    "manual": ("values",),
    "harmonic": ("num_intervals", "min_val"),
    "": ("num_intervals", "max_val", "min_val"),
}

MAX_RATIOS = 10_000
"""Maximum length of a series; more are probably a typing error (`harmonic` can yield billions)."""


class SpacingError(ConfigError):
    """An invalid spacing; `index`: its position in the list, `key`: the invalid field, if there is one."""

    def __init__(self, index: int, reason: str, key: str | None = None):
        super().__init__(f"experiments.spacing[{index}]: {reason}")
        self.index = index
        self.reason = reason
        self.key = key

    def __reduce__(self) -> tuple[type[SpacingError], tuple[int, str, str | None]]:
        return SpacingError, (self.index, self.reason, self.key)


def keep_ratios(spacings: Sequence[SpacingConfig]) -> list[float]:
    """Return the concatenated keep ratios of all spacings, each in (0, 1], rounded to 12 significant digits.

    Raises SpacingError for a missing or unusable field, a ratio outside (0, 1], and two equal ratios.
    """
    ratios: list[float] = []
    for index, spacing in enumerate(spacings):
        for ratio in _series(index, spacing):
            rounded = float(f"{ratio:.{DIGITS}g}")
            if not 0 < rounded <= 1:
                raise SpacingError(index, f"a keep ratio must be above 0 and at most 1, got {rounded:g}")
            if rounded in ratios:
                raise SpacingError(index, f"the keep ratio {rounded:g} appears twice")
            ratios.append(rounded)
    return ratios


def split_ratios(ratios: Sequence[float], retrain_iterations: int, mode: str) -> list[tuple[float, tuple[float, ...]]]:
    """Return every retrained ratio with the prune-only ratios that come before it, in the order of `ratios`.

    The ratios are split into `retrain_iterations` runs of nearly equal length, and the last of each is retrained; all
    ratios are if it is below 1. A step of a cascade continues the previous one, so only the prune-only ratios of its
    run are returned; in mode `retrain` every ratio starts from the trained network, so all earlier ones are. Nothing is
    pruned in mode `train`. Raises ConfigError if there are fewer ratios than `retrain_iterations`.
    """
    if mode == "train" or not ratios:
        return []
    if retrain_iterations > len(ratios):
        raise ConfigError(f"expected at most {len(ratios)}, the number of keep ratios, got {retrain_iterations}")
    runs = np.array_split(
        np.asarray(ratios, dtype=float), retrain_iterations if retrain_iterations > 0 else len(ratios)
    )
    steps: list[tuple[float, tuple[float, ...]]] = []
    for run in runs:
        *pruned, retrained = run.tolist()
        earlier = steps[-1][1] if steps and "cascade" not in mode else ()
        steps.append((retrained, (*earlier, *pruned)))
    return steps


def check_order(ratios: Sequence[float], mode: str) -> None:
    """Raise ConfigError unless the ratios of a cascade decrease."""
    if "cascade" not in mode:
        return
    for before, after in itertools.pairwise(ratios):
        if after >= before:
            raise ConfigError(f"in a cascade the keep ratios must decrease, but {after:g} follows {before:g}")


def spacing_notes(spacings: Sequence[SpacingConfig]) -> list[tuple[int, str]]:
    """Return warnings about valid spacings: (position in the list, text)."""
    notes = []
    for index, spacing in enumerate(spacings):
        required = _REQUIRED_KEYS.get(spacing.type, _REQUIRED_KEYS[""])
        for key in ("num_intervals", "max_val", "min_val", "values"):
            if key not in required and getattr(spacing, key) is not None:
                notes.append((index, f"a {spacing.type} spacing does not use {_spelled(key)}"))
        if spacing.type == "harmonic":
            last, low = _series(index, spacing)[-1], spacing.min_val or 0
            if last < low * (1 - 1e-9):
                notes.append((index, f"the harmonic series ends at {last:.6g}, below minVal {low:g}"))
    return notes


def _series(index: int, spacing: SpacingConfig) -> list[float]:
    """Return the ratios of one spacing, unrounded."""
    kind = spacing.type
    required = _REQUIRED_KEYS.get(kind, _REQUIRED_KEYS[""])
    for key in required:
        if getattr(spacing, key) is None:
            raise SpacingError(index, f"a {kind} spacing needs {_spelled(key)}")
    if kind == "manual":
        if not spacing.values:
            raise SpacingError(index, "a manual spacing needs at least one value", "values")
        return list(spacing.values)
    count, low = spacing.num_intervals, spacing.min_val
    assert count is not None
    assert low is not None
    for key in ("min_val", "max_val"):
        value = getattr(spacing, key)
        if key in required and not 0 < value <= 1:
            raise SpacingError(index, f"a keep ratio must be above 0 and at most 1, got {value:g}", key)
    if kind == "harmonic":
        return _harmonic(index, count, low)
    high = spacing.max_val
    assert high is not None
    if low > high:
        raise SpacingError(index, f"minVal {low:g} is above maxVal {high:g}", "min_val")
    if count != int(count) or count < 1:
        raise SpacingError(index, f"a {kind} spacing needs an integer number of ratios, got {count:g}", "num_intervals")
    if count > MAX_RATIOS:
        raise SpacingError(index, f"at most {MAX_RATIOS} ratios are allowed, got {count:g}", "num_intervals")
    return _between(index, kind, int(count), high, low)


def _between(index: int, kind: str, count: int, high: float, low: float) -> list[float]:
    """Return `count` ratios from `high` down to `low`; a single one is `high`."""
    if kind == "geometric":
        return list(np.geomspace(high, low, count).tolist())
    if kind == "linear":
        return list(np.linspace(high, low, count).tolist())
    if kind == "cubic":
        if count == 1:
            raise SpacingError(index, "a cubic spacing needs at least two ratios", "num_intervals")
        steps = np.arange(count) / (count - 1)
        return list((low + (high - low) * (1 - steps) ** 3).tolist())
    exponent = math.log(high / low) / math.log(count) if count > 1 else 0.0
    return list((high * np.arange(1, count + 1) ** -exponent).tolist())


def _harmonic(index: int, intervals: float, low: float) -> list[float]:
    """Return (i + 1)^-p for i = 1, 2, ..., with p such that the ratio at i = `intervals` is 1/2.

    The series ends at the first ratio that is not above `low`, and may thus end below it.
    """
    exponent = math.log(2) / math.log1p(intervals)
    log_reached = -math.log(low) / exponent
    if log_reached > math.log(MAX_RATIOS):
        raise SpacingError(index, f"more than {MAX_RATIOS} ratios; lower numIntervals or raise minVal", "num_intervals")
    # The tolerance keeps rounding errors from adding a ratio if one equals `low`.
    count = max(1, math.ceil(math.exp(log_reached) * (1 - 1e-12)) - 1)
    ratios: list[float] = (np.arange(2, count + 2) ** -exponent).tolist()
    return ratios


def _spelled(key: str) -> str:
    return f"{camel_case(key)!r}"
