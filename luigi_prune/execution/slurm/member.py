"""A job in its SLURM process, alone or with others: its claim, its heartbeat, and its end."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from luigi_prune.execution import claims
from luigi_prune.execution.bundles import MemberLog
from luigi_prune.execution.job import Context, Job, Outcome
from luigi_prune.execution.slurm.heartbeat import HeartbeatWriter

_CLAIM_SECONDS = 3.0  # between two looks at the claim of a job that shares its process


class Member:
    """One job of a process. One that shares the process stops once its claim is void; scancel would stop all."""

    def __init__(self, job: Job, attempt: int, writer: HeartbeatWriter, output: str, slurm_id: str, shared: bool):
        """`output`: the log to which the process writes; `attempt`: of the job's claim."""
        self.job = job
        self.writer = writer
        self._attempt = attempt
        self._shared = shared
        self._log = MemberLog(job, output, f"process 1 of 1, SLURM job {slurm_id}") if job.log != output else None
        self._outcome: Outcome | None = None
        self._reported = self._withdrawn = False
        self._next_look = 0.0

    def context(self, common: Context, should_stop: Callable[[], bool]) -> Context:
        """Return the job's context, from that of the process."""
        context = replace(common, should_stop=should_stop)
        if context.rank == 0:
            context.progress = self.writer.progress
        if self._shared:
            context.should_stop = lambda: should_stop() or self._is_withdrawn()
            context.is_superseded = lambda: self._is_withdrawn(now=True)
        if self._log is not None:
            context.log_line = self._log.line
        return context

    def _is_withdrawn(self, now: bool = False) -> bool:
        """Return whether the claim is gone, or a later attempt has been claimed."""
        if not self._withdrawn and (now or time.monotonic() >= self._next_look):
            self._next_look = time.monotonic() + _CLAIM_SECONDS
            own, later = (claims.claim_path(self.job.output, self._attempt + more) for more in (0, 1))
            self._withdrawn = _is_missing(own) or not _is_missing(later)
        return self._withdrawn

    def end(self, outcome: Outcome) -> None:
        """Take the outcome, unless there is one; report it at once, except for that of a job that may be requeued."""
        if self._outcome is not None:
            return
        self._outcome = outcome
        if self._log is not None:
            self._log.end(outcome)
        elif outcome.status != "done":
            with suppress(OSError):  # the disk is full
                print(outcome.message, file=sys.stderr, flush=True)
        if self._shared and (outcome.status != "interrupted" or self._withdrawn):
            self.report()

    def report(self) -> None:
        """Report the outcome to the driver, once."""
        if self._reported or self._outcome is None:
            return
        self._reported = True
        if self._shared and self._outcome.status != "done" and self._is_withdrawn(now=True):
            self.writer.withdraw()  # nobody waits for it
            return
        if self._outcome.status == "done" and self.writer.rank == 0:
            with suppress(OSError):  # the driver does it, too
                claims.release(self.job.output)
        self.writer.end(self._outcome)

    @property
    def is_interrupted(self) -> bool:
        """Whether the job has been stopped, and waits to be continued."""
        stopped = self._outcome is not None and self._outcome.status == "interrupted"
        return stopped and not (self._shared and self._is_withdrawn(now=True))

    @property
    def has_failed(self) -> bool:
        """Whether the job has ended without a result, and not because it was withdrawn."""
        return self._outcome is None or (self._outcome.status != "done" and not self._withdrawn)


def _is_missing(path: os.PathLike[str]) -> bool:
    try:
        os.stat(path)
    except FileNotFoundError:
        return True
    except OSError:  # a file system that does not respond
        return False
    return False
