"""Comparison of methods: ranking, quality at fixed sizes, and a checklist of soundness."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from luigi_prune.analysis.commensurate import has_validation
from luigi_prune.analysis.completeness import evaluated, missing_and_expected
from luigi_prune.analysis.statistics import SOUND_NUMBER_OF_NETS
from luigi_prune.registry import METHODS

Arrays = dict[str, np.ndarray]

# Compression ratios that Blalock et al. (2020) ask every pruning paper to report.
COMPRESSIONS = (2.0, 4.0, 8.0, 16.0, 32.0)
# log2 of 1.02
SAME_COMPRESSION = 0.0286
# Scores that ignore the weights: a method that uses one is a random-pruning baseline.
RANDOM_SCORES = frozenset({"uniform", "random_channel", "shuffled_magnitude"})


def at_compression(
    arrays: Arrays, test_set: str, label: str, compressions: tuple[float, ...] = COMPRESSIONS
) -> np.ndarray:
    """Return a metric or `loss` at fixed compressions (original / pruned size), (compression, net, repetition, method).

    Each run is interpolated linearly in the logarithm of the *achieved* size between its two nearest networks, the
    unpruned one included; NaN if no network is that small: nothing is extrapolated, but a smallest network within 2 %
    of the compression counts as one, because ratios are met up to a filter.
    """
    values, size = arrays[f"test/{test_set}/{label}"], arrays["cost/size"]
    nets, _, repetitions, methods = values.shape
    out = np.full((len(compressions), nets, repetitions, methods), np.nan)
    log_compressions = np.log2(np.asarray(compressions))
    for net, repetition, method in np.ndindex(nets, repetitions, methods):
        y, s = values[net, :, repetition, method], size[net, :, repetition, method]
        known = np.isfinite(y) & np.isfinite(s) & (s > 0)
        unpruned = values[net, :, repetition, 0]
        unpruned = unpruned[np.isfinite(unpruned)][:1]
        x = np.concatenate([np.zeros(len(unpruned)), -np.log2(s[known])])
        if len(x):
            order = np.argsort(x, kind="stable")
            end = x[order][-1]
            near = np.where(np.abs(log_compressions - end) <= SAME_COMPRESSION, end, log_compressions)
            y_sorted = np.concatenate([unpruned, y[known]])[order]
            out[:, net, repetition, method] = np.interp(near, x[order], y_sorted, left=np.nan, right=np.nan)
    return out


def paired_change(arrays: Arrays, test_set: str, label: str) -> np.ndarray:
    """Return a metric or `loss` minus that of the same run's unpruned network (net, ratio, repetition, method)."""
    values = arrays[f"test/{test_set}/{label}"]
    return values - values[..., :1]


def largest_miss(arrays: Arrays) -> np.ndarray:
    """Return per method the largest relative distance of an achieved keep ratio from its target (0.01: 1 %)."""
    miss = np.abs(arrays["cost/size"] / arrays["ratio/nominal"][:, None, None] - 1.0)
    worst = np.where(np.isnan(miss), -1.0, miss).max(axis=(0, 1, 2), initial=-1.0)
    return np.where(worst < 0, np.nan, worst)


@dataclass(frozen=True)
class Check:
    """One item of the checklist of a sound comparison (Blalock et al. 2020, and others named in `remark`)."""

    question: str
    met: bool
    remark: str


def checklist(arrays: Arrays, measured: Arrays, meta: dict[str, Any], provenance: dict[str, Any]) -> list[Check]:
    """Return the checklist of what this comparison reports and lacks."""
    methods = [str(method) for method in arrays["axes/method"]]
    pruning = ~arrays["method/nominal"]
    nets, ratios = len(arrays["axes/net"]), len(arrays["axes/keep_ratio"])
    runs = nets * len(arrays["axes/repetition"])
    miss = largest_miss(arrays)[pruning]
    worst = float(np.nanmax(miss)) if np.isfinite(miss).any() else float("nan")
    random = [method for method in methods if method in METHODS and METHODS[method].score in RANDOM_SCORES]
    epochs = meta.get("retraining_epochs")
    unretrained = epochs is not None and epochs[0] >= epochs[1]
    before = any(name.startswith("before/") and np.isfinite(values).any() for name, values in arrays.items())
    seconds = sorted(name for name in measured if "seconds" in name and "gpu_seconds" not in name)
    validated = has_validation(arrays)
    on_validation = (
        "chosen on validation, reported on test"
        if validated
        else "nothing measured on validation: chosen on the test set"
    )
    return [
        Check(
            "Compression and theoretical speed-up, both defined", True, "parameters and multiply-adds, see Definitions"
        ),
        Check("Unpruned control", True, "the reference line, the same trained networks"),
        Check("Random-pruning baseline", bool(random), ", ".join(random) or "none among the methods"),
        Check("At least 5 operating points", ratios >= 5, f"{ratios} keep ratios"),
        Check(
            f"At least {SOUND_NUMBER_OF_NETS} independently trained networks",
            nets >= SOUND_NUMBER_OF_NETS,
            f"{nets}" + ("" if nets >= SOUND_NUMBER_OF_NETS else ": differences are indicative"),
        ),
        Check(
            "Sample standard deviation beside every mean",
            runs > 1,
            "over nets and repetitions" if runs > 1 else "there is one run",
        ),
        Check(
            "Retraining budget stated",
            epochs is not None,
            "none" if unretrained else f"epochs {epochs[0] + 1} to {epochs[1]}" if epochs else "unknown",
        ),
        Check(
            "Quality before retraining",
            unretrained or before,
            "nothing is retrained" if unretrained else "right after pruning" if before else "not measured",
        ),
        Check(
            "Achieved sizes within 1 % of their targets",
            bool(np.isfinite(worst) and worst <= 0.01),
            f"largest relative distance {100 * worst:.2g} %" if np.isfinite(worst) else "no results",
        ),
        Check(
            "Budget per layer", bool(np.isfinite(arrays["layers/kept"]).any()), f"{len(arrays['axes/layer'])} layers"
        ),
        Check("Ratio chosen on validation, reported on test", validated, on_validation),
        Check("Measured cost", bool(seconds), ", ".join(seconds) or "no seconds recorded"),
        Check("Complete results", not meta.get("partial", False), _missing_text(arrays, meta)),
        Check(
            "Environment, version and settings recorded",
            bool(provenance),
            "see Provenance" if provenance else "none recorded",
        ),
    ]


def _missing_text(arrays: Arrays, meta: dict[str, Any]) -> str:
    missing, expected = missing_and_expected(evaluated(arrays, meta))
    return f"{missing} of {expected} evaluations missing"
