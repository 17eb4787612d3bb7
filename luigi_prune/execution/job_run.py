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
from luigi_prune.errors import DamagedResult, Interrupted, LuigiPruneError, Superseded
from luigi_prune.execution import claims
from luigi_prune.execution.job import Context, Job, Outcome
from luigi_prune.results.disk_space import full_disk


def run(job: Job, context: Context) -> Outcome:
    """Run a job in this process and return its outcome; only SystemExit and KeyboardInterrupt propagate."""
    began = time.perf_counter()
    if job.attempt:
        context.is_superseded = partial(claims.is_superseded, job.output, job.attempt)

    def ended(status: Any, message: str = "", **more: Any) -> Outcome:
        return Outcome(status, message, seconds=time.perf_counter() - began, **more)

    try:
        registry.look_in(json.loads(job.request.get("directories", "{}")).get("modules"))
        module, _, name = job.function.rpartition(":")
        function = getattr(importlib.import_module(module), name)
        with _algorithms(context):
            function(job.request, context)
    except DamagedResult as damage:
        return ended("damaged", str(damage), damaged=str(damage.path))
    except Interrupted as stop:
        return ended("interrupted", str(stop))
    except Superseded as stop:
        return ended("elsewhere", str(stop))
    except LuigiPruneError as error:
        return ended("failed", str(error), retry=False)
    except Exception as error:
        if isinstance(error, FileNotFoundError) and str(error.filename) in input_paths(job.request):
            return ended("damaged", str(error), damaged=str(error.filename))  # deleted after the job started
        if problem := full_disk(error, job.output):
            return ended("failed", problem, retry=False, ends_run=True)
        retry = isinstance(error, OSError | MemoryError)  # other errors are those of the spec and would recur
        return ended("failed", traceback.format_exc(), retry=retry)
    return ended("done")


def _algorithms(context: Context) -> AbstractContextManager[None]:
    if not context.deterministic:
        return nullcontext()
    from luigi_prune.compute.determinism import deterministic_algorithms  # loads torch

    return deterministic_algorithms()


def input_paths(request: dict[str, Any]) -> set[str]:
    """Return the paths of the results that a job reads."""
    return {*request.get("inputs", {}).values(), *request.get("cells", {}).values()}
