"""Jobs that read results: Aggregate and Report."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from luigi_prune.analysis.aggregate import aggregate_results
from luigi_prune.analysis.costs import Measured, family_costs
from luigi_prune.compute.metrics.foreign_metrics import labels_lower_is_better
from luigi_prune.config.schema import Experiment
from luigi_prune.execution.job import Context
from luigi_prune.identity.spec import ExperimentSpec, shown_methods
from luigi_prune.jobs.outputs import write
from luigi_prune.registry import metric_label, plain
from luigi_prune.report.write import write_report
from luigi_prune.results.hdf5_file import read_about, read_measured, read_result


def aggregate(request: dict[str, Any], context: Context) -> None:
    """Write the tables of an experiment from its evaluations."""
    spec = ExperimentSpec.model_validate_json(request["spec"])
    began = time.perf_counter()
    shape = (spec.num_nets, len(spec.keep_ratios), spec.num_repetitions, len(spec.methods))

    def cells(test_set: str, *index: int) -> Any:
        if len(index) == len(shape):
            return request["cells"]["/".join(map(str, (test_set, *index)))]
        return [cells(test_set, *index, at) for at in range(shape[len(index)])]

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
    tables = aggregate_results(grid, read_result)
    costs = family_costs(request["cells"].values(), _cost)
    write(request, context, began, tables.arrays, meta=tables.meta, measured={**tables.measured, **costs})


def _cost(path: str) -> Measured | None:
    """Return the measured cost in a result file and the paths of its inputs; None if it is missing or unreadable."""
    try:
        about, numbers = read_about(path), read_measured(path)
    except (OSError, KeyError, ValueError):
        return None
    parents = about["provenance"].get("parents", {}).values()
    folder = Path(path).parent
    places = {parent["key"]: os.path.normpath(folder / parent["path"]) for parent in parents}
    return Measured(about["family"], about["key"], numbers, places)


def report(request: dict[str, Any], context: Context) -> None:
    """Write the report on an experiment's tables."""
    experiment = Experiment.model_validate_json(request["spec"])
    tables = read_result(request["inputs"]["tables"])
    labels, colors = shown_methods(experiment)
    folder = Path(request["output"]).parent
    plotting = experiment.experiments.plotting
    written = write_report(
        tables.arrays,
        tables.meta,
        experiment.model_dump(mode="json", by_alias=True),
        folder,
        key=tables.key,
        measured={name: array for name, array in tables.measured.items() if array.ndim},  # without Aggregate's own
        provenance=tables.provenance,
        plotting={"min_val": plotting.min_val, "max_val": plotting.max_val},
        labels=labels,
        colors=colors,
    )
    context.progress(1.0, f"{len(written)} files")
