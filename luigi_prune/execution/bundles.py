"""Bundles: jobs of an equal schedule that share a process, each with an outcome, a log and a context of its own.

A backend gathers them from the jobs that it holds when a slot is free; none waits for a job that is not ready. A job
that has failed runs alone afterwards, so that a crash, which takes the whole process, is repeated by one job at most.
"""

from __future__ import annotations

import importlib
import math
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from luigi_prune.execution.job import Context, Job, Outcome
from luigi_prune.execution.job_run import run, watch_claim
from luigi_prune.identity.common_schedule import common_schedule

_TRAININGS = ("luigi_prune.jobs.train_base_job:train_base", "luigi_prune.jobs.retrain_job:retrain")
_TOGETHER = "luigi_prune.jobs.together_job"  # by name: it loads torch

Ended = Callable[[int, Outcome], None]


def schedule_of(job: Job, together: Mapping[str, int]) -> str:
    """Return a text that is equal for jobs that can share a process; "" for a job that runs alone.

    `together`: how many jobs of a family share a process at most (ComputeSettings.together).
    """
    if job.alone or together.get(job.family, 1) < 2 or not (schedule := common_schedule(job.request)):
        return ""
    return f"{job.function} {schedule}"


def bundle_size(most: int, ready: int, free: int = 1) -> int:
    """Return how many of `ready` jobs of an equal schedule start together: at most `most`, shared by `free` slots."""
    return min(most, math.ceil(ready / max(1, free)))


def run_members(members: Sequence[Job], contexts: Sequence[Context], ended: Ended) -> None:
    """Run jobs of an equal schedule in this process; `ended(i, outcome)` is called once for each, as soon as it ends.

    Only SystemExit and KeyboardInterrupt propagate.
    """
    if len(members) == 1:
        ended(0, run(members[0], contexts[0]))
        return
    reported: set[int] = set()

    def report(index: int, outcome: Outcome) -> None:
        if index not in reported:
            reported.add(index)
            ended(index, replace(outcome, retry=True) if outcome.memory else outcome)  # alone, it may suffice

    keys = tuple(str(job.request.get("key", job.name))[:12] for job in members)
    for job, context in zip(members, contexts, strict=True):
        context.together = keys
        watch_claim(job, context)
    message = "the process ended without an outcome of this job"
    try:
        if members[0].function in _TRAININGS:
            importlib.import_module(_TOGETHER).run_together(members, contexts, report)
        else:
            _run_one_after_another(members, contexts, report)
    except Exception:  # a bug: each of them is tried again, alone
        message = traceback.format_exc()
    for index in range(len(members)):
        report(index, Outcome("failed", message))


def _run_one_after_another(members: Sequence[Job], contexts: Sequence[Context], ended: Ended) -> None:
    for index, (job, context) in enumerate(zip(members, contexts, strict=True)):
        ended(index, run(job, context))


class MemberLog:
    """The log of a job whose process writes its output to that of another job; never raises."""

    def __init__(self, job: Job, output: str, place: str):
        """`output`: log of the process; `place` names the process, or the queue's job, at the end of a line."""
        self._path = Path(job.log)
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
        self.line(f"{job.name}: shares a process, whose output is in {output}")
        self.line(f"{job.name}: {place}")

    def line(self, text: str) -> None:
        """Append a line."""
        now = time.time()
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now)) + f",{int(now % 1 * 1000):03d}"
        with suppress(OSError), open(self._path, "a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{stamp} INFO {text}\n")

    def end(self, outcome: Outcome) -> None:
        """Append the message of an outcome, unless the job is done."""
        if outcome.status != "done":
            with suppress(OSError), open(self._path, "a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(f"{outcome.message}\n")
