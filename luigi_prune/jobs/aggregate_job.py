"""Aggregate: the tables of an experiment from its evaluations."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from luigi_prune.analysis.aggregate import Aggregated, aggregate_results
from luigi_prune.analysis.costs import Measured, family_costs
from luigi_prune.compute.metrics.foreign_metrics import labels_lower_is_better
from luigi_prune.execution.job import Context
from luigi_prune.identity.spec import ExperimentSpec
from luigi_prune.jobs.outputs import write
from luigi_prune.registry import metric_label, plain
from luigi_prune.results.hdf5_file import Result, read_about, read_measured, read_result


def aggregate(request: dict[str, Any], context: Context) -> None:
    """Write the tables of an experiment from its evaluations."""
    spec = ExperimentSpec.model_validate_json(request["spec"])
    began = time.perf_counter()
    tables = experiment_tables(spec, request["cells"], read_result)
    write(request, context, began, tables.arrays, meta=tables.meta, measured=tables.measured)


def experiment_tables(
    spec: ExperimentSpec, paths: Mapping[str, str | None], read: Callable[[str], Result]
) -> Aggregated:
    """Return the tables of an experiment, with the costs of its tasks among the measured ones.

    `paths` has the result of every cell by "test set/net/ratio/repetition/method", None for a missing one.
    """
    shape = (spec.num_nets, len(spec.keep_ratios), spec.num_repetitions, len(spec.methods))

    def cells(test_set: str, *index: int) -> Any:
        """Return the result paths as nested lists, one level per axis of `shape`."""
        if len(index) == len(shape):
            return paths["/".join(map(str, (test_set, *index)))]
        return [cells(test_set, *index, position) for position in range(shape[len(index)])]

    grid = {
        "experiment": spec.name,
        "dataset_train": plain(spec.network.dataset),
        "network": plain(spec.network.name),
        "mode": spec.mode,
        "methods": list(spec.methods),
        "keep_ratios": list(spec.keep_ratios),
        "num_nets": spec.num_nets,
        "num_repetitions": spec.num_repetitions,
        "metrics": [metric_label(metric) for metric in spec.metrics],
        "test_sets": [plain(test_set) for test_set in spec.test_sets],
        "lower_is_better": labels_lower_is_better(spec.metrics),
        "retraining_epochs": list(spec.retraining_epochs),
        "early_stop_epochs": list(spec.early_stop_epochs),
        "cells": {plain(test_set): cells(test_set) for test_set in spec.test_sets},
    }
    tables = aggregate_results(grid, read)
    costs = family_costs([path for path in paths.values() if path is not None], _cost)
    return tables._replace(measured={**tables.measured, **costs})


def _cost(path: str) -> Measured | None:
    """Return the costs measured in a result file and the paths of its inputs; None if it is missing or unreadable."""
    try:
        about, costs = read_about(path), read_measured(path)
    except (OSError, KeyError, ValueError):
        return None
    parents = about["provenance"].get("parents", {}).values()
    folder = Path(path).parent
    input_paths = {parent["key"]: os.path.normpath(folder / parent["path"]) for parent in parents}
    return Measured(about["family"], about["key"], costs, input_paths)
