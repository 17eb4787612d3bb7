"""Writes the result of a job, with its costs and provenance."""

from __future__ import annotations

import json
import os
import resource
import time
from pathlib import Path
from typing import Any

from luigi_prune.errors import Superseded
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

    `began` is the `time.perf_counter()` of its start. The costs in `earlier`, the input, are copied. GPU seconds are
    wall-clock seconds times the job's GPUs; the peaks (bytes) are this process's memory and, on a GPU, its tensors'.
    `precision` of a training goes into the provenance, not into the key, which does not depend on the device. Raises
    Superseded if another run has taken over.
    """
    if context.is_superseded():
        raise Superseded(f"{request['output']}: another run has taken over; nothing is written")
    family = str(request["family"]).lower()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    seconds = time.perf_counter() - began
    costs: dict[str, Any] = {
        f"{family}_seconds": seconds,
        f"{family}_gpu_seconds": seconds * context.gpus,
        f"{family}_peak_bytes": peak,
    }
    if context.device.startswith("cuda"):
        from luigi_prune.jobs.process import peak_gpu_bytes  # Aggregate runs without torch

        costs[f"{family}_gpu_peak_bytes"] = peak_gpu_bytes(context)
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
            **({"together": {"count": len(context.together), "keys": context.together}} if context.together else {}),
            parents={name: _parent(path, folder) for name, path in request["inputs"].items()},
        ),
        arrays=arrays,
        meta=meta,
        measured={**(earlier.measured if earlier else {}), **(measured or {}), **costs},
    )


def _parent(path: str, folder: Path) -> dict[str, str]:
    """Return path, key and checksum of an input; the path is relative, so that a results folder can be moved."""
    about = read_about(path)
    return {"path": os.path.relpath(path, folder), "key": about["key"], "content_sha256": about["content_sha256"]}
