"""All results as one table, with what went wrong in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from luigi_prune.analysis.completeness import exists
from luigi_prune.analysis.statistics import by_run, spread
from luigi_prune.analysis.verdict import TOLERATED_MISS
from luigi_prune.report.cells import NOTHING, Cell, Table, factor, limits, number
from luigi_prune.report.curves import Quality, compression_factors
from luigi_prune.report.style import MethodStyle

Arrays = dict[str, np.ndarray]

# A share of right answers below this multiple of guessing is chance.
ABOVE_CHANCE = 1.25


def chance_of(label: str, settings: dict[str, Any]) -> float:
    """Return the share of right answers of guessing, NaN if it is unknown or the metric is no such share."""
    outputs = settings.get("network", {}).get("outputSize")
    is_top = label.startswith("TopK") and label[4:].isdigit()
    return int(label[4:]) / int(outputs) if is_top and outputs and int(outputs) > 1 else float("nan")


def flags(
    arrays: Arrays, meta: dict[str, Any], test_set: str, label: str, chance: float
) -> dict[tuple[int, int], list[str]]:
    """Return what is wrong with the results of each (ratio, method): few are listed, most have nothing."""
    values, size = arrays[f"test/{test_set}/{label}"], arrays["cost/size"]
    kept, nominal = arrays["layers/kept"], arrays["method/nominal"]
    target = arrays["ratio/nominal"][:, None]
    miss = spread(by_run(np.abs(size / target[None, :, :, None] - 1.0))).maximum
    known, done = np.isfinite(values), exists(arrays, meta, test_set)
    found: dict[tuple[int, int], list[str]] = {}
    for ratio, method in np.ndindex(values.shape[1], values.shape[3]):
        texts = []
        there, expected = int(done[:, ratio, :, method].sum()), done[:, ratio, :, method].size
        if method and there < expected:
            texts.append(f"PARTIAL: {there} of {expected}")
        if method and not nominal[method]:
            gone = (kept[:, ratio, :, method] == 0).any(axis=(0, 1))
            if gone.any():
                texts.append(f"collapse: nothing left of {_layers(arrays, gone)}")
            if miss[ratio, method] > TOLERATED_MISS:
                texts.append(f"missed ratio: by {100 * miss[ratio, method]:.0f} %")
        worst = np.where(known[:, ratio, :, method], values[:, ratio, :, method], np.inf).min()
        if np.isfinite(worst) and worst <= ABOVE_CHANCE * chance:
            texts.append("chance level" + ("" if (values[:, ratio, :, method] == worst).all() else " in some run"))
        if texts:
            found[ratio, method] = texts
    return found


def _layers(arrays: Arrays, gone: np.ndarray) -> str:
    names = [str(name) for name in arrays["axes/layer"][gone]]
    return names[0] if len(names) == 1 else f"{len(names)} layers"


def all_results_table(
    arrays: Arrays,
    styles: Sequence[MethodStyle],
    qualities: Sequence[Quality],
    wrong: dict[tuple[int, int], list[str]],
    test_set: str,
) -> Table:
    """Return every method at every keep ratio; `qualities` are those of all metrics and the loss on the test set."""
    size, flops = (compression_factors(arrays, cost) for cost in ("cost/size", "cost/flops"))
    first, rows, same = qualities[0], [], _the_same_at_all_ratios(qualities, styles)
    for method, style in enumerate(styles):
        for ratio, keep_ratio in enumerate(arrays["axes/keep_ratio"]):
            if ratio and method in same:
                continue
            key = f"{method}.{ratio}"
            cells: list[str] = [Cell(style.plain, method=method)]
            cells.append(Cell(NOTHING if method in same else f"{keep_ratio:.4g}", order=float(keep_ratio)))
            for factors in (size, flops):
                value = 1.0 if method in same else float(factors[ratio, method])
                cells.append(Cell(factor(value) if np.isfinite(value) else NOTHING, order=value))
            for quality in qualities:
                cells.append(value_cell(quality, ratio, method, f"{key}.{quality.label}"))
            cells.append(change_cell(first, ratio, method, f"{key}.change"))
            cells.append(str(int(first.value.n[ratio, method])))
            texts = wrong.get((ratio, method), [])
            cells.append(Cell("; ".join(texts), tone="warn" if texts else ""))
            rows.append(tuple(cells))
    units = [quality.label + (" (%)" if quality.scale == 100.0 else "") for quality in qualities]
    unit = f" ({first.unit})" if first.unit else ""
    columns = (
        "method", "keep ratio", "parameters", "FLOPs", *units, f"change of {first.label}{unit}", "runs", "flags",
    )  # fmt: skip
    caption = (
        f"On the test set {test_set}. Parameters and FLOPs: original over kept, as achieved. Mean ± sample standard "
        "deviation over the runs (nets and repetitions); the change is paired with the run's own unpruned network, "
        "with its 95 % interval over nets."
    )
    return Table("All results", caption, columns, rows, name="results")


def _the_same_at_all_ratios(qualities: Sequence[Quality], styles: Sequence[MethodStyle]) -> set[int]:
    """Return the unpruned network, and controls that are one network beside all ratios, as in mode `retrain`."""
    same = {0}
    for method, style in enumerate(styles):
        means = [quality.value.mean[:, method] for quality in qualities]
        if style.nominal and all(np.array_equal(mean, np.full_like(mean, mean[0]), equal_nan=True) for mean in means):
            same.add(method)
    return same


def value_cell(quality: Quality, ratio: int, method: int, key: str) -> Cell:
    """Return mean ± standard deviation of one metric at one ratio."""
    mean, std = float(quality.value.mean[ratio, method]), float(quality.value.std[ratio, method])
    text = number(mean, std, quality.scale, 2 if quality.scale == 100.0 else 4)
    return Cell(text, order=quality.scale * mean, key=key)


def change_cell(quality: Quality, ratio: int, method: int, key: str) -> Cell:
    """Return the paired change with its interval; nothing for the unpruned network."""
    if method == 0:
        return Cell(NOTHING, order=0.0, key=key)
    digits, scale = (2, 100.0) if quality.scale == 100.0 else (4, 1.0)
    mean, low, high = (
        float(part[ratio, method]) for part in (quality.change.mean, quality.change.low, quality.change.high)
    )
    note = limits(scale * low, scale * high, f"{{:+.{digits}f}}")
    return Cell(number(mean, scale=scale, digits=digits, sign=True), note, order=scale * mean, key=key)
