"""Report: plots, Markdown, HTML page, `.npz` and TensorBoard logs of an experiment's tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from luigi_prune.config.schema import Experiment
from luigi_prune.execution.job import Context
from luigi_prune.identity.spec import shown_methods
from luigi_prune.report.write import write_report
from luigi_prune.results.hdf5_file import read_result


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
        # without scalars: those are the costs of Aggregate itself
        measured={name: array for name, array in tables.measured.items() if array.ndim},
        provenance=tables.provenance,
        plotting={"min_val": plotting.min_val, "max_val": plotting.max_val},
        labels=labels,
        colors=colors,
    )
    context.progress(1.0, f"{len(written)} files")
