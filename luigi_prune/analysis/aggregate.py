"""Tables of an experiment: its `Evaluate` results on the axes (net, ratio, repetition, method)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from luigi_prune.analysis.optional_tables import OptionalTables
from luigi_prune.analysis.reference_format import reference_npz
from luigi_prune.registry import METHODS

if TYPE_CHECKING:
    from luigi_prune.results.hdf5_file import Result

__all__ = ["Aggregated", "aggregate_results", "reference_npz"]

Cell = tuple[int, int, int, int]
Arrays = dict[str, np.ndarray]

REFERENCE = "ReferenceNet"


class Aggregated(NamedTuple):
    """Tables of an experiment; `measured` (seconds, bytes) is separate because it differs from run to run."""

    arrays: Arrays
    measured: Arrays
    meta: dict[str, Any]


@dataclass
class _Gathered:
    """Histories and layers of the results, before the lengths of the epoch and layer axes are known."""

    histories: dict[Cell, Arrays] = field(default_factory=dict)
    kept: dict[Cell, np.ndarray] = field(default_factory=dict)
    layer_names: np.ndarray | None = None
    layer_totals: np.ndarray | None = None


def aggregate_results(grid: dict[str, Any], read: Callable[[str], Result]) -> Aggregated:
    """Return the tables of an experiment; values of missing results are NaN.

    `grid` names the axes and, per test set, the path of the `Evaluate` result of each cell or None; each distinct path
    is read once. `FileNotFoundError` and `DamagedResult` from `read` propagate. In mode `train` the only ratio is 1
    and the only method the reference.

    Arrays, with N nets, R ratios, P repetitions, M methods, E epochs, L layers:

    - `axes/net` (N), `axes/keep_ratio` (R, nominal), `axes/repetition` (P), `axes/method` (M, text), `axes/epoch` (E,
      absolute and 0-based), `axes/layer` (L, text), `axes/metric`, `axes/test_set` (text);
    - `method/nominal` (M, bool): methods that prune nothing, with nominal `cost/`;
    - `metric/lower_is_better` (metrics, bool), only if that is so for one of them;
    - `test/<test set>/<metric>`, `test/<test set>/loss` (N, R, P, M): on the test set;
    - `validation/<metric>`, `validation/loss` (N, R, P, M): on the validation split, at the epoch whose weights were
      kept;
    - `cost/size`, `cost/flops` (N, R, P, M): relative to the unpruned network, in [0, 1];
    - `cost/size_total`, `cost/flops_total` (N): parameters and multiply-adds of the unpruned networks;
    - `ratio/nominal` (R) and `ratio/achieved` (N, R, P, M): target and achieved keep ratio (1 for methods that
      prune nothing);
    - `curves/train_loss`, `curves/validation_loss`, `curves/learning_rate`, `curves/train/<metric>`,
      `curves/validation/<metric>` (N, R, P, M, E);
    - `layers/kept` (N, R, P, M, L) and `layers/total` (L): weights per compressible layer;
    - those of `OptionalTables` as far as results have them.

    `measured` has the same axes (N, R, P, M), named as in the results (`..._seconds`, `..._bytes`). `meta` is JSON-
    able.
    """
    grid = _without_ratios(grid) if grid["mode"] == "train" or not grid["keep_ratios"] else grid
    arrays = _empty(grid)
    measured: Arrays = {}
    gathered = _Gathered()
    optional = OptionalTables(_shape(grid), (*grid["metrics"], "loss"))
    counts = dict.fromkeys(grid["test_sets"], 0)
    for path, places in _places(grid).items():
        result = read(path)
        for test_set, cell in places:
            _fill(arrays, gathered, grid, result, test_set, cell)
            _fill_measured(measured, grid, result, cell)
            optional.fill(result.arrays, test_set, cell)
            counts[test_set] += 1
    _add_curves(arrays, gathered, grid)
    _add_layers(arrays, gathered, grid, path_hint=str(grid["experiment"]))
    _apply_nominal(arrays, grid)
    return Aggregated(arrays | optional.arrays, measured, _meta(grid, counts))


def _without_ratios(grid: dict[str, Any]) -> dict[str, Any]:
    """Return the grid of mode `train`: one ratio, 1.0, and the reference alone."""
    cells = {
        test_set: [[[[repetition[0]] for repetition in net[0]]] for net in nets]
        for test_set, nets in grid["cells"].items()
    }
    return {**grid, "keep_ratios": [1.0], "methods": [REFERENCE], "cells": cells}


def _shape(grid: dict[str, Any]) -> Cell:
    return grid["num_nets"], len(grid["keep_ratios"]), grid["num_repetitions"], len(grid["methods"])


def _places(grid: dict[str, Any]) -> dict[str, list[tuple[str, Cell]]]:
    """Return, per distinct path, its test sets and cells."""
    places: dict[str, list[tuple[str, Cell]]] = {}
    for test_set in grid["test_sets"]:
        cells = grid["cells"].get(test_set)
        for cell in np.ndindex(*_shape(grid)):
            net, ratio, repetition, method = cell
            path = cells[net][ratio][repetition][method] if cells is not None else None
            if path is not None:
                places.setdefault(str(path), []).append((test_set, cell))
    return places


def _empty(grid: dict[str, Any]) -> Arrays:
    shape = _shape(grid)
    labels = [*grid["metrics"], "loss"]
    per_cell = [f"test/{test_set}/{label}" for test_set in grid["test_sets"] for label in labels]
    per_cell += [f"validation/{label}" for label in labels]
    per_cell += ["cost/size", "cost/flops", "ratio/achieved"]
    lower = [metric in grid.get("lower_is_better", ()) for metric in grid["metrics"]]
    return {
        "axes/net": np.arange(shape[0]),
        "axes/keep_ratio": np.asarray(grid["keep_ratios"], dtype=np.float64),
        "axes/repetition": np.arange(shape[2]),
        "axes/method": np.asarray(grid["methods"], dtype=np.str_),
        "axes/metric": np.asarray(grid["metrics"], dtype=np.str_),
        "axes/test_set": np.asarray(grid["test_sets"], dtype=np.str_),
        "method/nominal": np.asarray([_prunes_nothing(method) for method in grid["methods"]], dtype=np.bool_),
        **({"metric/lower_is_better": np.asarray(lower, dtype=np.bool_)} if any(lower) else {}),
        **{name: np.full(shape, np.nan) for name in per_cell},
        "cost/size_total": np.full(shape[0], np.nan),
        "cost/flops_total": np.full(shape[0], np.nan),
        "ratio/nominal": np.asarray(grid["keep_ratios"], dtype=np.float64),
    }


def _prunes_nothing(method: str) -> bool:
    """Return whether a method is a control, with size and FLOPs of keep ratio x original by convention."""
    return method == REFERENCE or (method in METHODS and METHODS[method].granularity == "none")


def _fill(arrays: Arrays, gathered: _Gathered, grid: dict[str, Any], result: Result, test_set: str, cell: Cell) -> None:
    """Write one result into one cell."""
    source = result.arrays
    for metric in grid["metrics"]:
        arrays[f"test/{test_set}/{metric}"][cell] = _scalar(source, f"metrics/{metric}")
    arrays[f"test/{test_set}/loss"][cell] = _scalar(source, "loss")
    for name in ("size", "flops"):
        original = _scalar(source, f"original_{name}")
        arrays[f"cost/{name}_total"][cell[0]] = original
        arrays[f"cost/{name}"][cell] = _scalar(source, name) / original if original else np.nan
    arrays["ratio/achieved"][cell] = arrays["cost/size"][cell]
    history = {name.removeprefix("history/"): values for name, values in source.items() if name.startswith("history/")}
    gathered.histories[cell] = history
    for label, value in _kept_epoch(history, grid, cell):
        arrays[f"validation/{label}"][cell] = value
    if "layers/kept" in source:
        gathered.kept[cell] = np.asarray(source["layers/kept"], dtype=np.float64)
        if gathered.layer_names is None:
            gathered.layer_names = np.asarray(source["layers/name"], dtype=np.str_)
            gathered.layer_totals = np.asarray(source["layers/total"], dtype=np.float64)


def _scalar(source: Arrays, name: str) -> float:
    return float(np.asarray(source[name]).reshape(-1)[0]) if name in source else float("nan")


def _kept_epoch(history: Arrays, grid: dict[str, Any], cell: Cell) -> Iterator[tuple[str, float]]:
    """Yield the validation loss and metrics at the epoch whose weights are the result."""
    epochs = history.get("epoch", np.zeros(0))
    if not len(epochs):
        return
    if "kept_epoch" in history:
        at = int(np.flatnonzero(epochs == history["kept_epoch"])[0])
    else:
        at = _row_of_early_stopping(history, grid, cell)
    for label in grid["metrics"]:
        if f"validation/{label}" in history:
            yield label, float(history[f"validation/{label}"][at])
    if "validation_loss" in history:
        yield "loss", float(history["validation_loss"][at])


def _row_of_early_stopping(history: Arrays, grid: dict[str, Any], cell: Cell) -> int:
    """Return the row of the kept epoch of a result without `history/kept_epoch`: it was not always stored.

    That is the last epoch, or, where `grid["early_stop_epochs"]` (of training and of retraining) says that early
    stopping was on, the latest best epoch by the first metric from there on.
    """
    epochs, stops = history["epoch"], grid.get("early_stop_epochs")
    first = history.get(f"validation/{grid['metrics'][0]}") if grid["metrics"] else None
    if stops is not None and first is not None:
        stop = stops[0] if grid["methods"][cell[3]] == REFERENCE else stops[1]
        candidates = np.flatnonzero((epochs >= stop) & np.isfinite(first))
        if len(candidates):
            is_lower = grid["metrics"][0] in grid.get("lower_is_better", ())
            best = first[candidates].min() if is_lower else first[candidates].max()
            return int(candidates[first[candidates] == best][-1])
    return len(epochs) - 1


def _fill_measured(measured: Arrays, grid: dict[str, Any], result: Result, cell: Cell) -> None:
    """Write the measured numbers of one result (seconds, bytes) into one cell."""
    for name, value in result.measured.items():
        number = np.asarray(value)
        if number.size == 1 and number.dtype.kind in "iuf":
            measured.setdefault(name, np.full(_shape(grid), np.nan))[cell] = float(number.reshape(-1)[0])


def _add_curves(arrays: Arrays, gathered: _Gathered, grid: dict[str, Any]) -> None:
    """Add the per-epoch curves, each value at its absolute epoch."""
    lasts = [int(history["epoch"][-1]) for history in gathered.histories.values() if len(history.get("epoch", ()))]
    length = max(lasts) + 1 if lasts else 0
    names = ["train_loss", "validation_loss", "learning_rate"]
    names += [f"{split}/{metric}" for split in ("train", "validation") for metric in grid["metrics"]]
    arrays["axes/epoch"] = np.arange(length)
    for name in names:
        curve = np.full((*_shape(grid), length), np.nan)
        for cell, history in gathered.histories.items():
            if name in history and len(history.get("epoch", ())):
                curve[cell][np.asarray(history["epoch"], dtype=np.int64)] = history[name]
        arrays[f"curves/{name}"] = curve


def _add_layers(arrays: Arrays, gathered: _Gathered, grid: dict[str, Any], path_hint: str) -> None:
    """Add names and kept weights of the compressible layers; all cells must have the same layers."""
    names = gathered.layer_names if gathered.layer_names is not None else np.zeros(0, dtype="<U1")
    totals = gathered.layer_totals if gathered.layer_totals is not None else np.zeros(0)
    kept = np.full((*_shape(grid), len(names)), np.nan)
    for cell, counts in gathered.kept.items():
        if len(counts) != len(names):
            raise ValueError(
                f"{path_hint}: expected {len(names)} compressible layers in cell {cell}, got {len(counts)}"
            )
        kept[cell] = counts
    arrays["axes/layer"], arrays["layers/kept"], arrays["layers/total"] = names, kept, totals


def _apply_nominal(arrays: Arrays, grid: dict[str, Any]) -> None:
    """Overwrite the cost of methods that prune nothing by keep ratio x original in cells that have a result."""
    nominal = np.broadcast_to(arrays["axes/keep_ratio"][None, :, None, None], _shape(grid))
    where = np.isfinite(arrays["cost/size"]) & arrays["method/nominal"]
    for name in ("cost/size", "cost/flops"):
        arrays[name] = np.where(where, nominal, arrays[name])


def _meta(grid: dict[str, Any], counts: dict[str, int]) -> dict[str, Any]:
    """Return the settings to read the tables by, and the number of missing cells per test set."""
    names = ("experiment", "dataset_train", "network", "mode", "num_nets", "num_repetitions", "retraining_epochs")
    total = int(np.prod(_shape(grid)))
    extra = {"early_stop_epochs": grid["early_stop_epochs"]} if "early_stop_epochs" in grid else {}
    return {
        **{name: grid[name] for name in names if name in grid},
        **extra,
        "cells_per_test_set": total,
        "missing": {test_set: total - count for test_set, count in counts.items()},
        "partial": any(count < total for count in counts.values()),
    }
