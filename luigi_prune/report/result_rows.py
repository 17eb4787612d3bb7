"""The tables of a report for other programs: `results.csv`, `excess_error.csv`, an `.npz` with torchprune's names."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from luigi_prune.analysis.excess_error import excess_errors, nominal_test_set
from luigi_prune.analysis.inference import Interval
from luigi_prune.analysis.reference_format import reference_npz

Arrays = dict[str, np.ndarray]

# Columns of costs and the arrays they come from; all of them are 1 for a network that prunes nothing.
COSTS = {
    "keep_ratio": "axes/keep_ratio",
    "achieved_keep_ratio": "ratio/achieved",
    "size": "cost/size",
    "flops": "cost/flops",
}


def write_data(
    folder: Path, arrays: Arrays, measured: Arrays, meta: dict[str, Any], labels: dict[str, str], key: str
) -> None:
    """Write `results.csv` with one row per network and test set, and an `.npz` per test set, into a new folder.

    With pyarrow also `results.parquet`, with several test sets `excess_error.csv`.
    """
    folder.mkdir(parents=True)
    for test_set in (str(name) for name in arrays["axes/test_set"]):
        table = reference_npz(arrays, meta, test_set=test_set, time_tag=key, labels=labels, measured=measured)
        # numpy's stubs assume that the dictionary may contain `allow_pickle`.
        np.savez_compressed(folder / f"{file_name(meta['experiment'])}_{file_name(test_set)}.npz", **table)  # type: ignore[arg-type]
    with (folder / "results.csv").open("w", newline="", encoding="utf-8") as file:
        rows = result_rows(arrays, measured)
        writer = csv.DictWriter(file, next(rows))
        writer.writeheader()
        writer.writerows(rows)
    _write_parquet(folder / "results.csv")
    if excess := excess_rows(arrays, meta):
        with (folder / "excess_error.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(excess[0]))
            writer.writeheader()
            writer.writerows(excess)


def _write_parquet(table: Path) -> None:
    """Write the rows of a CSV file with typed columns beside it, if pyarrow (the extra `parquet`) is installed."""
    try:
        import pyarrow.csv
        import pyarrow.parquet
    except ImportError:
        return
    pyarrow.parquet.write_table(pyarrow.csv.read_csv(table), table.with_suffix(".parquet"))


def excess_rows(arrays: Arrays, meta: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the excess error of every method on every test set but that of the training data."""
    nominal = nominal_test_set(arrays, str(meta["dataset_train"]))
    return [
        {
            "method": str(arrays["axes/method"][found.method]),
            "test_set": found.test_set,
            "nominal": nominal,
            "metric": str(metric),
            "nets": found.slope.n,
            **_interval("slope", found.slope),
            **_interval("mean", found.mean),
            **_interval("bootstrapped_slope", found.line),
        }
        for metric in arrays["axes/metric"]
        for found in excess_errors(arrays, str(metric), nominal)
    ]


def _interval(name: str, found: Interval) -> dict[str, str]:
    return {
        name: repr(float(found.mean)),
        f"{name}_low": repr(float(found.low)),
        f"{name}_high": repr(float(found.high)),
    }


def result_rows(arrays: Arrays, measured: Arrays) -> Iterator[dict[str, Any]]:
    """Yield a row with the names of the columns (and empty values), then one row per network and test set.

    Numbers are at full precision, "nan" for a missing result. A network that prunes nothing has keep ratio 1 and one
    row, however many ratios it stands beside; `step` is the place of the ratio on the axis, from 1, 0 for such networks
    (in a cascade, a retrained control has one row per step).
    """
    labels = [*(str(metric) for metric in arrays["axes/metric"]), "loss"]
    first = True
    for test_set in (str(name) for name in arrays["axes/test_set"]):
        tables = {
            **{label: arrays[f"test/{test_set}/{label}"] for label in labels},
            **{f"validation_{label}": arrays[f"validation/{label}"] for label in labels},
            **_stored(arrays, {f"before_{label}": f"before/{test_set}/{label}" for label in labels}),
            **_stored(arrays, {name: f"{name}/{test_set}" for name in ("calibration_error", "agreement")}),
            **{name.replace("/", "_"): values for name, values in sorted(measured.items())},
        }
        if first:
            names = ("test_set", "method", "net", "repetition", "step", *COSTS, *tables)
            yield dict.fromkeys(names, "")
            first = False
        copies = _copies(tables["loss"], arrays["method/nominal"])
        for cell in np.ndindex(copies.shape):
            if copies[cell]:
                continue
            net, ratio, repetition, method = cell
            costs, step = _costs(arrays, cell), ratio + 1
            if arrays["method/nominal"][method]:
                # `cost/` has keep ratio x original there, by the convention of torchprune.
                costs, step = dict.fromkeys(costs, "1.0"), 0 if copies[net, 1:, repetition, method].all() else step
            yield {
                "test_set": test_set,
                "method": str(arrays["axes/method"][method]),
                "net": net,
                "repetition": repetition,
                "step": step,
                **costs,
                **{name: repr(float(table[cell])) for name, table in tables.items()},
            }


def _copies(values: np.ndarray, nominal: np.ndarray) -> np.ndarray:
    """Return which cells repeat a network that prunes nothing: another ratio, or for the reference a repetition."""
    same = (values == values[:, :1]) | (np.isnan(values) & np.isnan(values[:, :1]))
    copies = np.zeros(values.shape, dtype=np.bool_)
    copies[:, 1:] = (same.all(axis=1, keepdims=True) & nominal)[:, [0] * (values.shape[1] - 1)]
    copies[:, :, 1:, 0] = True
    return copies


def _costs(arrays: Arrays, cell: tuple[int, ...]) -> dict[str, str]:
    found = [arrays["axes/keep_ratio"][cell[1]], *(arrays[name][cell] for name in tuple(COSTS.values())[1:])]
    return dict(zip(COSTS, (repr(float(number)) for number in found), strict=True))


def _stored(arrays: Arrays, sources: dict[str, str]) -> Arrays:
    return {name: arrays[source] for name, source in sources.items() if source in arrays}


def file_name(text: str) -> str:
    """Return `text` as a safe part of a path."""
    return re.sub(r"[^\w.+-]+", "_", text).lstrip(".") or "_"
