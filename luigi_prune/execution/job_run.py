"""Runs a job in this process: what every backend calls, wherever the process is.

Job functions are imported by name when they run, so that nothing here, and no process that only waits, loads torch.
"""

from __future__ import annotations

import importlib
import json
import time
import traceback
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from luigi_prune import registry
from luigi_prune.errors import DamagedResult, Interrupted, LuigiPruneError
from luigi_prune.execution.job import Context, Job, Outcome


def run(job: Job, context: Context) -> Outcome:
    """Run a job in this process and return how it ended; raises nothing but what ends the process itself."""
    began = time.perf_counter()

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
    except LuigiPruneError as error:
        return ended("failed", str(error), retry=False)
    except Exception as error:
        if isinstance(error, FileNotFoundError) and str(error.filename) in inputs(job.request):
            return ended("damaged", str(error), damaged=str(error.filename))  # it went away after the start
        again = isinstance(error, OSError | MemoryError)  # the same spec fails the same way, a machine need not
        return ended("failed", traceback.format_exc(), retry=again)
    return ended("done")


def _algorithms(context: Context) -> AbstractContextManager[None]:
    if not context.deterministic:
        return nullcontext()
    from luigi_prune.compute.determinism import deterministic_algorithms  # loads torch

    return deterministic_algorithms()


def inputs(request: dict[str, Any]) -> set[str]:
    """Return the paths that a job reads."""
    return {*request.get("inputs", {}).values(), *request.get("cells", {}).values()}
