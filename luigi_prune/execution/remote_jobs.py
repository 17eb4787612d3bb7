"""Jobs that outlive their driver, as commands see them: read from the results folder and the site's queue.

A backend whose jobs do (SLURM jobs, say) names a subclass of RemoteJobs in its row. Nothing here starts a driver.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from luigi_prune.execution.job import Job


@dataclass(frozen=True)
class JobPlace:
    """Where a job is, on its way to a result."""

    text: str  # for people: "SLURM job 12_0 on n3: 40%  epoch 4/10"
    running: bool = False  # it has begun and not said that it is over
    label: str = "job"  # RemoteJobs.label of its backend


class SubmittedJob(Protocol):
    """A job that some driver has submitted, and whose request is still there."""

    @property
    def job(self) -> Job:
        """The job."""

    @property
    def job_id(self) -> str:
        """The queue's id of the job; "" if there is none yet."""

    @property
    def age(self) -> float:
        """Seconds since it was submitted."""

    @property
    def start_log(self) -> Path:
        """What the queue and the start of the job print, before the job's own log takes over."""

    def newest(self) -> SubmittedJob:
        """Return the newest submission of the same job: itself, or the one that has replaced it."""


@dataclass(frozen=True)
class Cancellation:
    """The jobs that a cancellation would end. Reading it changes nothing; `carry_out` does."""

    running: int = 0
    waiting: int = 0
    ended: int = 0  # have ended without a result, or were never submitted: they are forgotten
    of_others: int = 0  # jobs of other users, left alone
    drivers: tuple[int, ...] = ()  # processes on this machine that submitted them and still run
    carry_out: Callable[[], None] = lambda: None  # raises ConfigError if the site does not answer

    @property
    def jobs(self) -> int:
        """How many jobs of this user there are, alive or not."""
        return self.running + self.waiting + self.ended


class RemoteJobs:
    """Jobs of one backend, whichever driver submitted them; the defaults are those of a backend that keeps none."""

    label = "job"  # what people call one: "SLURM job"; a job's log names it as "<label> <id>" at the end of a line
    noise = ""  # lines of start logs that begin so tell nothing

    def where(self, outputs: Iterable[Path]) -> dict[Path, JobPlace]:
        """Return where the job is that makes each of `outputs`, for those that are not there and have one."""
        return {}

    def outputs(self, results: Path) -> list[Path]:
        """Return every result, there or not, that some job has claimed below a results folder."""
        return []

    def submitted(self, results: Path) -> list[SubmittedJob]:
        """Return every job whose request lies below a results folder."""
        return []

    def is_id(self, text: str) -> bool:
        """Return whether `text` can be a job's id."""
        return bool(text)

    def same_id(self, asked: str, job_id: str) -> bool:
        """Return whether a person who writes `asked` can mean the job `job_id`."""
        return asked == job_id

    def cancellation(self, outputs: Iterable[Path]) -> Cancellation:
        """Return what cancelling the jobs that make `outputs` would end; raises ConfigError if the site is silent."""
        return Cancellation()

    def leftovers(self, results: Path) -> list[tuple[Path, str]]:
        """Return files and folders that nobody will read any more, each with the reason."""
        return []
