"""The queue of a backend that starts jobs on this machine: first come, first served, equal ones together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from luigi_prune.execution.bundles import bundle_size, schedule_of
from luigi_prune.execution.job import Job, Listener


@dataclass(eq=False)
class WaitingJob:
    """A job that waits for a slot."""

    job: Job
    listener: Listener
    schedule: str  # jobs of an equal one can start together; "": alone
    due: bool  # whether all jobs that are ready with it have been submitted


class WaitingJobs:
    """Jobs in order of submission; not thread-safe."""

    def __init__(self, together: Mapping[str, int]):
        """`together`: as in ComputeSettings."""
        self._together = together
        self._jobs: list[WaitingJob] = []

    def add(self, job: Job, listener: Listener) -> WaitingJob:
        """Queue a job; one that can share its process is due after `all_submitted`, others at once."""
        schedule = schedule_of(job, self._together)
        self._jobs.append(WaitingJob(job, listener, schedule, due=not schedule))
        return self._jobs[-1]

    def all_submitted(self) -> bool:
        """Make all jobs due, and return whether any of them was not."""
        late = [waiting for waiting in self._jobs if not waiting.due]
        for waiting in late:
            waiting.due = True
        return bool(late)

    def drop(self, matches: Callable[[WaitingJob], bool]) -> list[Listener]:
        """Remove jobs and return their listeners."""
        dropped = [waiting for waiting in self._jobs if matches(waiting)]
        self._jobs = [waiting for waiting in self._jobs if waiting not in dropped]
        return [waiting.listener for waiting in dropped]

    def first(self) -> WaitingJob | None:
        """Return the job that starts next; None if none is due."""
        return self._jobs[0] if self._jobs and self._jobs[0].due else None

    def take(self, free: int = 1) -> list[WaitingJob]:
        """Remove and return the jobs that start next in one process, if `free` slots share those that are ready."""
        if (first := self.first()) is None:
            return []
        taken = [first]
        if first.schedule:
            equal = [waiting for waiting in self._jobs if waiting.due and waiting.schedule == first.schedule]
            taken = equal[: bundle_size(self._together[first.job.family], len(equal), free)]
        self._jobs = [waiting for waiting in self._jobs if waiting not in taken]
        return taken
