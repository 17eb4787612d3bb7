"""Runs a job in the current process, for every backend.

Job functions are imported by name when they run, so that neither this module nor a waiting process loads torch.
"""

from __future__ import annotations

import importlib
import json
import time
import traceback
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from luigi_prune import registry
from luigi_prune.errors import DamagedResult, Interrupted, LuigiPruneError, OutOfMemory, Superseded
from luigi_prune.execution import claims
from luigi_prune.execution.job import Context, Job, Outcome
from luigi_prune.results.disk_space import full_disk


def run(job: Job, context: Context) -> Outcome:
    """Run a job in this process and return its outcome; only SystemExit and KeyboardInterrupt propagate."""
    began = time.perf_counter()
    watch_claim(job, context)
    try:
        registry.look_in(json.loads(job.request.get("directories", "{}")).get("modules"))
        module, _, name = job.function.rpartition(":")
        function = getattr(importlib.import_module(module), name)
        with algorithms_of(context):
            function(job.request, context)
    except Exception as error:
        return outcome_of(error, job, time.perf_counter() - began)
    return Outcome("done", seconds=time.perf_counter() - began)


def watch_claim(job: Job, context: Context) -> None:
    """Have the context tell whether another run has claimed the job's result; a backend's own answer counts, too."""
    if job.attempt:
        own, claimed = context.is_superseded, partial(claims.is_superseded, job.output, job.attempt)
        context.is_superseded = lambda: own() or claimed()


def outcome_of(error: Exception, job: Job, seconds: float) -> Outcome:
    """Return the outcome of a job whose function has raised `error`."""

    def ended(status: Any, message: str, **more: Any) -> Outcome:
        return Outcome(status, message, seconds=seconds, **more)

    if isinstance(error, DamagedResult):
        return ended("damaged", str(error), damaged=str(error.path))
    if isinstance(error, Interrupted):
        return ended("interrupted", str(error))
    if isinstance(error, Superseded):
        return ended("elsewhere", str(error))
    if isinstance(error, LuigiPruneError):
        return ended("failed", str(error), retry=False, memory=isinstance(error, OutOfMemory))
    if isinstance(error, FileNotFoundError) and str(error.filename) in input_paths(job.request):
        return ended("damaged", str(error), damaged=str(error.filename))  # deleted after the job started
    if problem := full_disk(error, job.output):
        return ended("failed", problem, retry=False, ends_run=True)
    if problem := nondeterministic(error):
        return ended("failed", problem, retry=False)
    retry = isinstance(error, OSError | MemoryError)  # other errors are those of the spec and would recur
    return ended("failed", "".join(traceback.format_exception(error)), retry=retry)


def nondeterministic(error: Exception) -> str:
    """Return the line for torch's error about an operation without a deterministic form; "" for other errors."""
    operation, refused, _ = str(error).partition(" does not have a deterministic implementation")
    if not (refused and isinstance(error, RuntimeError)):
        return ""
    cure = "set [compute] deterministic=false in luigi.cfg, or choose another network, loss or metric"
    return f"deterministic=true: {operation.splitlines()[-1]} has no deterministic form in torch; {cure}"


def algorithms_of(context: Context) -> AbstractContextManager[None]:
    """Return a context in which torch uses deterministic algorithms only, if the context of a job asks for that."""
    if not context.deterministic:
        return nullcontext()
    from luigi_prune.compute.determinism import deterministic_algorithms  # loads torch

    return deterministic_algorithms()


def input_paths(request: dict[str, Any]) -> set[str]:
    """Return the paths of the results that a job reads."""
    return {*request.get("inputs", {}).values(), *request.get("cells", {}).values()}
