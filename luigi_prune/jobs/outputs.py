"""How job functions write: a result with what it measured and where it came from."""

from __future__ import annotations

import json
import os
import resource
import time
from pathlib import Path
from typing import Any

from luigi_prune.execution.job import Context
from luigi_prune.results.hdf5_file import Result, read_about, write_result
from luigi_prune.results.provenance import foreign_parts, provenance


def write(
    request: dict[str, Any],
    context: Context,
    began: float,
    arrays: dict[str, Any],
    *,
    meta: dict[str, Any],
    measured: dict[str, Any] | None = None,
    earlier: Result | None = None,
    precision: str | None = None,
) -> None:
    """Write a job's result.

    `began` is the `time.perf_counter()` of its start; what `earlier`, the input, had measured is carried along. GPU
    seconds are those of the whole job, whatever its number of processes; the peaks are this process's memory, and on a
    GPU what its tensors held there. `precision`: the one in which a network was trained. No key contains it, because
    keys do not know the device.
    """
    family = str(request["family"]).lower()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    seconds = time.perf_counter() - began
    own: dict[str, Any] = {
        f"{family}_seconds": seconds,
        f"{family}_gpu_seconds": seconds * context.gpus,
        f"{family}_peak_bytes": peak,
    }
    if context.device.startswith("cuda"):
        from luigi_prune.jobs.process import peak_gpu_bytes  # tables are written without torch

        own[f"{family}_gpu_peak_bytes"] = peak_gpu_bytes(context)
    folder = Path(request["output"]).parent
    write_result(
        request["output"],
        family=request["family"],
        key=request["key"],
        spec=json.loads(request["spec"]),
        provenance=provenance(
            job=context.job_id,
            threads=context.threads,
            processes=context.world_size,
            device=context.device,
            **({"precision": precision} if precision else {}),
            **({"parts": parts} if (parts := foreign_parts(request["spec"])) else {}),
            parents={name: _about(path, folder) for name, path in request["inputs"].items()},
        ),
        arrays=arrays,
        meta=meta,
        measured={**(earlier.measured if earlier else {}), **(measured or {}), **own},
    )


def _about(path: str, folder: Path) -> dict[str, str]:
    """Return what identifies an input; its path is relative, so that a store can be moved."""
    about = read_about(path)
    return {"path": os.path.relpath(path, folder), "key": about["key"], "content_sha256": about["content_sha256"]}
